"""The commands of the three command lines: repeated options are joined or refused, and an unknown option is answered with what to write.

The line of one command works in its siblings: an option that has no effect in one of them is left out with a note, and one that only
another command has is answered with the name of that command.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

# The metavar of an option whose value is a list: `--task a,b` and `--task a --task b` are the same.
COMMA_LIST = "A,B,..."
FindSettings = Callable[[str], Sequence[str]]
OptionTexts = Mapping[str, Mapping[str, str]]  # command -> option -> text
USAGE_ERROR: Any = typer.BadParameter.__base__  # click's UsageError, or typer's own copy of it in newer versions
DEVICE_OPTIONS = ("--gpu", "--gpus", "--gpu-id", "--cuda", "--cpu", "--no-cuda", "--accelerator")
OTHER_NAMES = {  # of other tools -> ours, the first that a command has
    "--batch-size": ["--batch"], "--bs": ["--batch"], "--num-workers": ["--workers"], "--jobs": ["--workers"], "--cores": ["--cpus"],
    "--model": ["--encoder"], "--models": ["--encoder"], "--encoders": ["--encoder"], "--tasks": ["--task"], "--dataset": ["--task"],
    "--protocols": ["--protocol"], "--csv": ["--table", "--labels"], "--annotations": ["--table", "--labels"], "--mem": ["--memory"],
    "--label-csv": ["--table", "--labels"], "--output": ["--out", "--csv"], "-o": ["--out", "--csv"], "--force": ["--overwrite"],
    "--resume": ["--continue"], "--image-size": ["--size"], "--img-size": ["--size"], "--job-name": ["--name"], "--amp": ["--precision"],
    "--fp16": ["--precision"], "--bf16": ["--precision"], "--metadata": ["--table", "--labels"],
}  # fmt: skip
OTHER_NAMES_OF_ARGUMENTS = {"--output": "out", "--out-file": "out", "--outfile": "out", "-o": "out", "--input": "src", "-i": "src"}
SHOWN_SIBLINGS = 2  # commands that have an option which this one lacks
SETTINGS_ARGUMENTS = ("overrides", "settings")  # arguments that take key=value


class ToolCommand(TyperCommand):
    """A command whose errors in the command line say what to write instead."""

    find_settings: ClassVar[FindSettings | None] = None
    without_effect: ClassVar[Mapping[str, str]] = {}  # options of siblings that are left out here -> why they have no effect
    advice: ClassVar[Mapping[str, str]] = {}  # options of siblings that are refused here -> what to write

    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        """As click's, with repeated options joined, if they are lists, or refused: the last one would win silently."""
        context = cast("typer.Context", ctx)  # of click, or of typer's own copy of it
        order: list[Any] | None = None
        while order is None:
            try:
                _, _, order = self.make_parser(context).parse_args(args=list(args))
            except USAGE_ERROR as error:
                option: str | None = getattr(error, "option_name", None)
                owners = find_owners(context, option) if option else {}
                if option is not None and option in self.without_effect and owners and not context.resilient_parsing:
                    print(f"note: {option} has no effect here: {self.without_effect[option]}", file=sys.stderr)
                    args = [*_drop_option(option, args, next(iter(owners.values())))]
                    continue
                if advice := self._advise(option, args, list(owners)):
                    error.message = f"{error.message.rstrip('.')}. {advice}"
                raise
        for option, count in Counter(order).items():
            if count > 1 and isinstance(option, TyperOption) and not (option.multiple or option.is_flag or option.count):
                values = list(_values_of_option(option.opts, args))
                if option.metavar != COMMA_LIST:
                    given = " and ".join(f"{option.opts[0]} {value}" for value in values)
                    context.fail(f"{option.opts[0]} takes one value, and was given {count} times: {given}")
                args = [*_join_option(option.opts, args, ",".join(values))]
        return super().parse_args(context, args)

    def _advise(self, option: str | None, args: Sequence[str], owners: Sequence[str] = ()) -> str:
        """What to write instead of an option that does not exist; "" without advice.  owners: commands that have it."""
        if option is None:
            return ""
        if option in self.advice:
            return self.advice[option]
        value = next(_values_of_option([option], args), "")
        names = {name for param in self.params for name in param.opts}
        if option in DEVICE_OPTIONS and "--device" in names:
            elsewhere = f"; `{owners[0]}` has {option}" if owners else ""
            return f"The device is chosen by --device: {_describe_device(option, value)}{elsewhere}"
        if ours := next((name for name in OTHER_NAMES.get(option, ()) if name in names), None):
            return f"Write {ours} {value or option.strip('-')}"
        argument = OTHER_NAMES_OF_ARGUMENTS.get(option, option.lstrip("-").replace("-", "_"))
        arguments = [param.metavar or param.name or "" for param in self.params if param.param_type_name == "argument"]
        if argument in arguments:
            return f"Write {argument} without {option}, in its place: {' '.join(arguments)}"
        if owners:
            return _describe_owners(option, owners)
        if not any(param.name in SETTINGS_ARGUMENTS for param in self.params):
            return ""
        find = type(self).find_settings
        keys = find(option.lstrip("-").replace("-", "_")) if find else []
        if keys:
            written = " or ".join(f"{key}={value or 'VALUE'}" for key in keys[:3])
            return f"Settings are written without dashes: {written}"
        return "Settings are written without dashes, as key=value"


class ToolGroup(TyperGroup):
    """A group of commands that lists them when it is given one that it does not have and that resembles none."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click's."""
        try:
            return super().resolve_command(ctx, args)
        except USAGE_ERROR as error:
            if "Did you mean" not in error.message:
                error.message = f"{error.message.rstrip('.')}; commands of `{ctx.command_path}`: {', '.join(self.list_commands(ctx))}"
            raise


def use_tool_commands(
    app: typer.Typer,
    find_settings: FindSettings | None = None,
    without_effect: OptionTexts | None = None,
    advice: OptionTexts | None = None,
) -> None:
    """Makes the commands of an application, and of those inside it, `ToolCommand`s. Called after the last command was added.

    find_settings: names the settings (key=value) that an unknown option may have meant, best first.  without_effect: options of siblings
    that a command leaves out, with the reason.  advice: options of siblings that a command refuses, with what to write."""
    shared: dict[str, object] = {} if find_settings is None else {"find_settings": staticmethod(find_settings)}
    for command in app.registered_commands:
        name = str(command.name or getattr(command.callback, "__name__", ""))
        own = {"without_effect": (without_effect or {}).get(name, {}), "advice": (advice or {}).get(name, {})}
        command.cls = type("ToolCommand", (ToolCommand,), shared | own)
    app.info.cls = ToolGroup
    for group in app.registered_groups:
        if group.typer_instance is not None:
            use_tool_commands(group.typer_instance, find_settings, without_effect, advice)


def find_owners(context: typer.Context, option: str) -> dict[str, bool]:
    """The other commands beside this one that have an option -> whether it is a flag there."""
    found: dict[str, bool] = {}
    above = context.parent
    for name, command in getattr(above.command, "commands", {}).items() if above is not None else ():
        for param in command.params:
            if option in (*param.opts, *param.secondary_opts) and isinstance(param, TyperOption):
                found[f"{above.command_path if above else ''} {name}".lstrip()] = bool(param.is_flag)
    return found


def _describe_owners(option: str, owners: Sequence[str]) -> str:
    names = " and ".join(f"`{name}`" for name in owners[:SHOWN_SIBLINGS])
    more = " and others" if len(owners) > SHOWN_SIBLINGS else ""
    return f"{option} is an option of {names}{more}: leave it out here"


def _values_of_option(opts: Sequence[str], args: Sequence[str]) -> Iterator[str]:
    """The values that an option has in a command line, up to `--`; `--opt=value` and `--opt value`."""
    words = iter(args)
    for word in words:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if name in opts:
            yield value if equals else next(words, "")


def _drop_option(option: str, args: Sequence[str], is_flag: bool) -> Iterator[str]:
    """The command line without an option and its value, up to `--`."""
    words = iter(args)
    for word in words:
        if word == "--":
            yield word
            yield from words
        elif word == option:
            if not is_flag:
                next(words, None)
        elif word.partition("=")[0] != option:
            yield word


def _join_option(opts: Sequence[str], args: Sequence[str], value: str) -> Iterator[str]:
    """The command line with the option once, in front, with this value."""
    yield from (opts[0], value)
    words = iter(args)
    for word in words:
        if word == "--":
            yield word
            yield from words
        elif (name := word.partition("=")[0]) in opts:
            if name == word:
                next(words, None)
        else:
            yield word


def _describe_device(option: str, value: str) -> str:
    if option in ("--cpu", "--no-cuda") or value == "cpu":
        return "write --device cpu"
    return f"write --device cuda:{value}" if value.isdecimal() else "write --device cuda"
