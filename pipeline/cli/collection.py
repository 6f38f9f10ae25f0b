# SPDX-License-Identifier: GPL-3.0-or-later
"""All tasks, by name: those for images, releases, keys and runs, and the collections below."""

from collections.abc import Callable
from typing import Any

from invoke.collection import Collection

from pipeline.cli import (
    image_tasks,
    inspect_tasks,
    key_tasks,
    kit_tasks,
    release_tasks,
    stage_tasks,
)


def all_tasks(*more: Callable[..., Any]) -> Collection:
    """Return the tasks of a farm, with `more` beside them."""
    top = [
        Collection.from_module(m) for m in (image_tasks, release_tasks, key_tasks, inspect_tasks)
    ]
    tasks = Collection(*(task for each in top for task in each.tasks.values()), *more)
    tasks.add_collection(Collection.from_module(kit_tasks, name="kit"))
    tasks.add_collection(Collection.from_module(stage_tasks, name="stage"))
    return tasks
