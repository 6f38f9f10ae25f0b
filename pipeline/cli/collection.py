# SPDX-License-Identifier: GPL-3.0-or-later
"""All tasks, by name: those for images, releases, keys and runs, and the collections below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli import (
    image_tasks,
    inspect_tasks,
    key_tasks,
    kit_tasks,
    release_tasks,
    stage_tasks,
)
from pipeline.cli.task import FarmTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invoke.collection import Collection

    Tasks = Mapping[str, FarmTask]

MODULES = (
    ("", image_tasks),
    ("", release_tasks),
    ("", key_tasks),
    ("", inspect_tasks),
    ("kit.", kit_tasks),
    ("stage.", stage_tasks),
)


def all_tasks(*more: FarmTask) -> Tasks:
    """Return the tasks of a farm as they are typed, with `more` beside them."""
    found = {task.name: task for task in more}
    for prefix, module in MODULES:
        own = (one for one in vars(module).values() if isinstance(one, FarmTask))
        found |= {f"{prefix}{task.name}": task for task in own}
    return found


def collection(tasks: Tasks) -> Collection:
    """Return the tasks as invoke has them."""
    from invoke.collection import Collection

    whole, parts = Collection(), dict[str, Collection]()
    for name, task in tasks.items():
        part = name.rpartition(".")[0]
        if part and part not in parts:
            parts[part] = Collection(part)
        (parts[part] if part else whole).add_task(task.for_invoke())
    for made in parts.values():
        whole.add_collection(made)
    return whole
