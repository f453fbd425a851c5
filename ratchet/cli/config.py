"""`ratchet config`: the schema, a check, and what is in force."""

from __future__ import annotations

import json
import re

import typer
import yaml

from ratchet.cli.options import ConfigFile
from ratchet.config import load, schema
from ratchet.errors import ConfigError

app = typer.Typer(help="Describe, check and show the configuration.", no_args_is_help=True)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of the YAML."""
    typer.echo(json.dumps(schema(), indent=2))


@app.command("check")
def check(file: ConfigFile = None) -> None:
    """Say whether the configuration is valid, and each fault on a line."""
    try:
        load(file)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{file or 'built-in configuration'}: valid")


@app.command("show")
def show(file: ConfigFile = None) -> None:
    """Print the configuration in force: the file under the environment, every default filled in, keys hidden."""
    tree = load(file).model_dump(mode="json")
    tree["store"]["url"] = re.sub(r"//[^@/]*@", "//***@", tree["store"]["url"])
    for engine in tree["engines"]:
        if engine["api_key"] is not None:
            engine["api_key"] = "***"
    typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), nl=False)
