"""."""
from pipeline.display import Display
from pipeline.workspace import Workspace


def run_demo(workspace: Workspace, display: Display) -> None:
    """."""
