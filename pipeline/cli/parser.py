# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses the command line: which tasks with which options, or what is wrong.

invoke takes any word for a missing value, even `--help`, and ends with status 1 if it cannot parse
something. So the words are parsed here: `--help` or `-h` after a task only shows its help, no
value begins with `--`, and wrong usage ends with status 2.
"""

import copy
import inspect
import signal
from collections.abc import Mapping, Sequence

from invoke.collection import Collection
from invoke.exceptions import Exit, UnexpectedExit
from invoke.executor import Executor
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from pipeline.base.errors import UsageError, command_line
from pipeline.base.plain import plain, print_plain
from pipeline.cli.listing import LIST, VERSION, task_list, version_line

HELP = frozenset({"--help", "-h"})
COMPLETION = "--completion"
OPTION_WIDTH = 34


def main(namespace: Collection, words: Sequence[str]) -> int:
    """Run the tasks that a command line names; return the exit status."""
    contexts = {str(context.name): context for context in namespace.to_contexts()}
    try:
        text = asked_for_help(namespace, contexts, words)
        if text is None:
            Executor(namespace).execute(*parse(contexts, words))
        else:
            print_plain(text)
    except UsageError as error:
        print_plain(f"twinbuild: {error}", error=True)
        return int(error.status)
    except UnexpectedExit as end:  # of a program that a task ran, which printed its error
        return int(end.result.exited)
    except Exit as end:
        if end.message:
            print_plain(end.message, error=True)
        return int(end.code)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def asked_for_help(
    namespace: Collection, contexts: Mapping[str, ParserContext], words: Sequence[str]
) -> str | None:
    """Return the list of tasks, the help of one, the version or a script, if requested."""
    if not words or words[0] in LIST:
        return task_list({name: documentation(namespace, name)[0] for name in contexts})
    if words[0] in VERSION:
        return version_line()
    if words[0] == COMPLETION:
        return completion(namespace, contexts, words[1:])
    begin = words[1:] if words[0] in HELP | {"help"} else words
    if begin is words and not HELP & set(words):
        return None
    if not begin or begin[0] in HELP:
        return task_list({name: documentation(namespace, name)[0] for name in contexts})
    return task_help(namespace, _task(contexts, begin[0]))


def completion(
    namespace: Collection, contexts: Mapping[str, ParserContext], words: Sequence[str]
) -> str:
    """Return the script that lets a shell complete tasks and options; `words` name the shell."""
    from pipeline.cli.completion import SHELLS, TaskHelp

    if len(words) != 1 or words[0] not in SHELLS:
        shells = ", ".join(SHELLS)
        raise UsageError(f"{COMPLETION} needs the name of a shell", remedy=f"one of {shells}")
    tasks = {}
    for name in sorted(contexts):
        flags = {option: arg for option, arg in contexts[name].flags.items() if option[1] == "-"}
        switches = [option for option, arg in flags.items() if arg.kind is bool]
        options = [option for option in flags if option not in switches]
        tasks[name] = TaskHelp(documentation(namespace, name)[0], options, switches)
    return SHELLS[words[0]](tasks)


def task_help(namespace: Collection, context: ParserContext) -> str:
    """Return the help of a task: usage, what it does, and its options."""
    needed = [_option(context, argument) for argument in context.missing_positional_args]
    required = "".join(f" {option} VALUE" for option in needed)
    lines = [f"Usage: {command_line(str(context.name))}{required} [--option VALUE …]", ""]
    lines += [*documentation(namespace, str(context.name)), "", "Options:"]
    for spelling, text in context.help_tuples():
        lines.append(f"  {spelling:{OPTION_WIDTH}}{text or ''}".rstrip())
    return "\n".join([*lines, f"  {'-h, --help':{OPTION_WIDTH}}show this"])


def parse(
    contexts: Mapping[str, ParserContext], words: Sequence[str]
) -> list[tuple[str, dict[str, object]]]:
    """Return the tasks that the words name, with their arguments; raise UsageError for wrong usage.

    A word that is not an option is the value of the option before it, or of the first required
    option that has none, or else the next task.
    """
    calls: list[ParserContext] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        missing = calls[-1].missing_positional_args if calls else []
        if calls and word.startswith("-"):
            _take_option(calls[-1], word, rest)
        elif missing:
            _set(calls[-1], missing[0], word)
        elif calls and word not in contexts:
            raise UsageError(
                f"{calls[-1].name} has no use for {plain(word)!r}", remedy=_see(calls[-1])
            )
        else:
            calls.append(copy.deepcopy(_task(contexts, word)))
    for call in calls:
        options = [_option(call, arg) for arg in call.missing_positional_args]
        if options:
            raise UsageError(f"{call.name} needs {' and '.join(options)}", remedy=_see(call))
    return [(str(call.name), call.as_kwargs) for call in calls]


def _take_option(task: ParserContext, word: str, rest: list[str]) -> None:
    """Set the option `word` of a task; its value may be the first of the words that follow."""
    option, equals, value = word.partition("=")
    if not option.startswith("--") and len(option) > 2 and option[:2] in task.flags:
        option, equals, value = option[:2], "=", word[2:]  # -iNAME
    positive = task.inverse_flags.get(option, option)
    if positive not in task.flags:
        raise UsageError(f"{task.name} has no option {plain(option)}", remedy=_see(task))
    argument: Argument = task.flags[positive]
    if argument.raw_value is not None and argument.kind is not list:
        raise UsageError(f"{option} is given twice", remedy=_see(task))
    if argument.kind is bool:
        if equals:
            raise UsageError(f"{option} takes no value", remedy=_see(task))
        argument.set_value(positive == option)
        return
    if not equals:
        value = rest.pop(0) if rest else "--"
    _set(task, argument, value, given="=" if equals else " ")


def _set(task: ParserContext, argument: Argument, value: str, *, given: str = " ") -> None:
    option = _option(task, argument)
    if value == "--" or (value.startswith("--") and given == " "):
        raise UsageError(f"{option} needs a value", remedy=_see(task))
    if value.startswith("--"):
        raise UsageError(f"the value of {option} begins with --: {plain(value)}", remedy=_see(task))
    try:
        argument.set_value(value)
    except ValueError:
        raise UsageError(
            f"{option} takes a number, not {plain(value)!r}", remedy=_see(task)
        ) from None


def _task(contexts: Mapping[str, ParserContext], name: str) -> ParserContext:
    if name.startswith("-"):
        raise UsageError(
            f"there is no option {plain(name)} before a task",
            remedy=f"{command_line('TASK --help')} shows those of a task",
        )
    if name not in contexts:
        raise UsageError(
            f"there is no task {plain(name)!r}", remedy=f"{command_line('--list')} names them"
        )
    return contexts[name]


def _option(task: ParserContext, argument: Argument) -> str:
    """Return an option as it is typed: `--from` for Python's `from_`."""
    names = [name for name, other in task.flags.items() if other is argument]
    return str(max(names, key=len))


def _see(task: ParserContext) -> str:
    return f"see {command_line(f'{task.name} --help')}"


def documentation(namespace: Collection, name: str) -> list[str]:
    """Return the lines of a task's help, at least one."""
    return inspect.cleandoc(namespace[name].__doc__ or "").splitlines() or [""]
