"""`completion`: what a shell needs to complete commands, options and choices."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "cloud-core"
VARIABLE = "_CLOUD_CORE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
      bash   cloud-core completion bash > ~/.local/share/bash-completion/completions/cloud-core
      zsh    cloud-core completion zsh > "${fpath[1]}/_cloud-core"
      fish   cloud-core completion fish > ~/.config/fish/completions/cloud-core.fish

    It takes effect in the next shell.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
