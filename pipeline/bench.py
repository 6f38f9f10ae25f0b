"""."""
from pipeline.display import Display
from pipeline.workspace import Workspace


def run_bench(workspace: Workspace, display: Display) -> str:
    """."""
    return ""
