"""Command line of the edge gateway."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="muster", prog_name="edge-gateway")
def main() -> None:
    """Registers the devices behind this gateway with a cloud core and relays their data.

    This release carries the command's skeleton only: the agent, its connectors and its spool are
    not part of it yet.
    """


if __name__ == "__main__":
    main()
