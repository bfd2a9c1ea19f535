"""policy: the network policy of a running lab, with the names of the NetWNV cmdlets."""

from __future__ import annotations

from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table
from testbed.errors import BadInput

_RECORDS, _ROUTES = "lookup-records", "customer-routes"
_PAS, _PA_ROUTES, _NEXT_HOP = "provider-addresses", "provider-routes", "select-next-hop"
OBJECTS = {
    _RECORDS: (
        "customer_address",
        "virtual_subnet_id",
        "mac_address",
        "provider_address",
        "rule",
        "type",
        "vm_name",
        "customer_id",
        "context",
        "use_vm_mac_address",
    ),
    _ROUTES: ("routing_domain_id", "virtual_subnet_id", "destination_prefix", "next_hop", "metric"),
    _PAS: ("provider_address", "prefix_length", "virtual_subnet_id"),
    _PA_ROUTES: ("destination_prefix", "next_hop", "metric"),
    _NEXT_HOP: ("destination_customer_address", "source_virtual_subnet_id", "source_customer_address"),
}
_TOLD = {_RECORDS: ("unusable", "unsynchronized"), _PAS: ("address_state",)}  # by the host, read-only
RULES = {rule.lower(): f"TranslationMethod{rule}" for rule in ("Encap", "Nat", "None")}
_RULE_NAMES = [*(rule.removeprefix("TranslationMethod") for rule in RULES.values()), *RULES.values()]
_TYPES = ["Static", "Dynamic", "L2Only", "GatewayWildcard"]


@click.command()
@click.argument("name")
@click.argument("object", metavar="OBJECT", type=click.Choice([*OBJECTS]))
@click.argument("verb", default="list", type=click.Choice(["list", "add", "set", "remove"]))
@click.option("--host", metavar="HOST", help="Default: every host that has policy of the VSID's network.")
@click.option("--local", is_flag=True, help="Change one host behind the VMM's back, until its next resync.")
@click.option("--customer-address", metavar="CA")
@click.option("--virtual-subnet-id", metavar="VSID", type=int)
@click.option("--mac-address", metavar="MAC")
@click.option("--provider-address", metavar="PA")
@click.option("--rule", type=click.Choice(_RULE_NAMES, case_sensitive=False), help="Default: Encap.")
@click.option("--type", type=click.Choice(_TYPES, case_sensitive=False), help="Default: Static.")
@click.option("--vm-name", metavar="TEXT")
@click.option("--customer-id", metavar="TEXT")
@click.option("--context", metavar="TEXT")
@click.option("--use-vm-mac-address", type=bool, help="With the rule Nat only.")
@click.option("--routing-domain-id", metavar="GUID")
@click.option("--destination-prefix", metavar="PREFIX")
@click.option("--next-hop", metavar="ADDRESS", help="0.0.0.0 or ::: on-link.")
@click.option("--metric", type=int, help="The lowest wins. Default: 255.")
@click.option("--prefix-length", type=int)
@click.option("--destination-customer-address", metavar="CA")
@click.option("--source-virtual-subnet-id", metavar="VSID", type=int)
@click.option("--source-customer-address", metavar="CA")
@format_option
def policy(
    name: str, verb: str, host: str | None, local: bool, rule: str | None, output: str, **options: Any
) -> None:
    """Show and change the network policy of a running lab.

    Where the lab has a VMM, that decides and the hosts concerned follow; else a change holds on all
    hosts or on none. What was refused has changed nothing.
    """
    from testbed.lab import policy as lab_policy
    from testbed.lab.lab import Lab

    object_ = options.pop("object")
    options["rule"] = rule and RULES.get(rule.lower(), rule)
    fields = _fields(object_, options)
    with Lab.open(name) as lab:
        if object_ == _NEXT_HOP:
            _show_next_hop(lab_policy.select_next_hop(lab, *_question(host, verb, fields)), output)
        elif verb == "list":
            if fields:
                raise BadInput(f"list takes no {_option(next(iter(fields)))}: it shows all {object_}")
            _show(object_, lab_policy.objects(lab, object_, host), output)
        else:
            if verb == "add":
                _need_all(object_, fields)
            changes = lab_policy.change(lab, object_, verb, fields, host, local=local)
            _show_changes(object_, changes, output)


def _fields(object_: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given. Raises BadInput for one that the object does not have."""
    given = {field: value for field, value in options.items() if value is not None}
    for field in given:
        if field not in OBJECTS[object_]:
            known = ", ".join(map(_option, OBJECTS[object_]))
            raise BadInput(f"{object_} have no {_option(field)}: one of {known}")
    return given


def _need_all(object_: str, fields: dict[str, Any]) -> None:
    """Raises BadInput for an object to add of which something is missing."""
    from msgspec.structs import fields as fields_of

    from testbed.wnv.objects import KINDS

    required = [each.name for each in fields_of(KINDS[object_].type) if each.required]
    if missing := [_option(name) for name in required if name not in fields]:
        raise BadInput(f"{object_} to add need {', '.join(missing)}")


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")


def _question(host: str | None, verb: str, fields: dict[str, Any]) -> tuple[str, str, int, str | None]:
    if verb != "list":
        raise BadInput(f"{_NEXT_HOP} is a question: leave out {verb!r}")
    if host is None:
        raise BadInput(f"{_NEXT_HOP} asks one host: say which with --host")
    for field in OBJECTS[_NEXT_HOP][:2]:
        if field not in fields:
            raise BadInput(f"{_NEXT_HOP} needs {_option(field)}")
    destination, vsid = (fields[field] for field in OBJECTS[_NEXT_HOP][:2])
    return host, destination, vsid, fields.get("source_customer_address")


def _show(object_: str, found: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        print_json(found)
        return
    columns = ["host", *OBJECTS[object_], *_TOLD.get(object_, ())]
    used = [column for column in columns if column == "host" or _worth_a_column(column, found)]
    print_table(
        [column.replace("_", " ") for column in used], [[_cell(each[key]) for key in used] for each in found]
    )


def _worth_a_column(column: str, found: list[dict[str, Any]]) -> bool:
    """Free text that no object has would only take the place of what matters."""
    free = ("vm_name", "customer_id", "context", "use_vm_mac_address")
    return column not in free or any(each[column] for each in found)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return str(value).removeprefix("TranslationMethod")


def _show_changes(object_: str, changes: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        print_json({"changes": changes})
        return
    for each in changes:
        click.echo(f"{each['host']}: {_change_text(object_, each)}")
    if not changes:
        click.echo("nothing to change")


def _change_text(object_: str, change: dict[str, Any]) -> str:
    old, new = change["old"], change["new"]
    sign = "~" if old and new else "+" if new else "-"
    values = [str(value) for value in (new or old).values() if value not in ("", False)]
    return f"{sign} {object_} {' '.join(values)}"


def _show_next_hop(found: dict[str, Any] | None, output: str) -> None:
    if output == "json":
        print_json(found)
    elif found is None:
        click.echo("there is no next hop")
    else:
        print_table(["", "found"], [[key.replace("_", " "), value] for key, value in found.items()])


COMMANDS = (policy,)
