"""Calls and shared attributes: reading, writing, methods.

`Any` stands for asyncua's objects, whose types are partial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from edge_gateway.connectors.opcua.browsing import Browser
from edge_gateway.connectors.opcua.compiled import Action
from edge_gateway.connectors.opcua.library import data_type_to_variant_type, ua
from edge_gateway.connectors.opcua.link import Link, Trouble, in_words
from edge_gateway.connectors.opcua.places import Place
from edge_gateway.connectors.opcua.settings import MAX_VALUE_BYTES
from edge_gateway.connectors.opcua.surveying import Target
from edge_gateway.connectors.opcua.values import as_variant, of_variant
from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.mapping.paths import MISSING, Path
from edge_gateway.mapping.values import shown
from edge_gateway.model import Json

_SCALAR = -1  # ValueRank
_ARGUMENTS = "InputArguments"


class Commands:
    """Carries out actions on one connection."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def carry_out(self, action: Action, target: Target, document: Json) -> Json:
        """The answer for the caller. Raises: Trouble and MappingError in words; what the library raises."""
        if action.kind == "read":
            return await self._read(action, target)
        if action.kind == "write":
            return await self._write(action, target, document)
        return await self._call(action, target, document)

    async def _node(self, place: Place, target: Target) -> Any:
        return (await Browser(self._link).find(target.root, place)).node_id

    async def _read(self, action: Action, target: Target) -> Json:
        node_id = await self._node(action.place, target)
        [value] = await self._link.read([node_id])
        _check(value.StatusCode, f"{action.place.text} cannot be read", self._link)
        try:
            json = action.convert(of_variant(value.Value))
        except NoValue:
            return None
        return _bounded(json, action)

    async def _write(self, action: Action, target: Target, document: Json) -> Json:
        value = action.value.first(document, MISSING)
        if value is MISSING:
            raise MappingError(f"there is no value to write for {action.place.text}; params need it")
        node_id = await self._node(action.place, target)
        variant = await self._as_nodes_own(node_id, action.unscale(value), action)
        # No time and no status: many servers refuse to have them written.
        data_value = ua.DataValue(variant, StatusCode=None)
        item = ua.WriteValue(NodeId=node_id, AttributeId=ua.AttributeIds.Value, Value=data_value)
        [status] = await self._link.session.write(ua.WriteParameters(NodesToWrite=[item]))
        _check(status, f"{action.place.text} was not written", self._link)
        return {"success": True}

    async def _as_nodes_own(self, node_id: Any, value: Json, action: Action) -> Any:
        """`value` in the node's own data type."""
        [data_type] = await self._link.read([node_id], ua.AttributeIds.DataType)
        [rank] = await self._link.read([node_id], ua.AttributeIds.ValueRank)
        _check(data_type.StatusCode, f"{action.place.text} was not written", self._link)
        kind = await self._variant_type(data_type.Value.Value)
        value_rank = rank.Value.Value if rank.Value is not None else None
        is_array = (value_rank is not None and value_rank >= 0) or (value_rank != _SCALAR and isinstance(value, list))
        template, is_open = None, kind is ua.VariantType.Variant
        if kind is ua.VariantType.ExtensionObject or is_open:
            [present] = await self._link.read([node_id])
            template = present.Value.Value if present.Value is not None else None
            if is_open and present.Value is not None:  # BaseDataType: as it is now
                kind = present.Value.VariantType
            template = template[0] if isinstance(template, list) and template else template
        return _variant(value, kind, is_array, template, action.place.text)

    async def _variant_type(self, data_type: Any) -> Any:
        return await data_type_to_variant_type(self._link.client.get_node(data_type))

    # --- methods ---------------------------------------------------------------------------------

    async def _call(self, action: Action, target: Target, document: Json) -> Json:
        method_id = await self._node(action.place, target)
        object_id = await self._object(action, target)
        declared = await self._declared(method_id)
        values = _values(action, document, declared)
        if declared is not None and len(values) != len(declared):
            names = ", ".join(str(one.Name) for one in declared) or "none"
            raise MappingError(f"{action.place.text} takes {len(declared)} arguments ({names}), not {len(values)}")
        arguments = [
            await self._argument(value, None if declared is None else declared[at], action)
            for at, value in enumerate(values)
        ]
        request = ua.CallMethodRequest(ObjectId=object_id, MethodId=method_id, InputArguments=arguments)
        [result] = await self._link.session.call([request])
        _check(result.StatusCode, f"{action.place.text} did not succeed", self._link)
        outputs = [of_variant(one) for one in result.OutputArguments or ()]
        return _bounded(outputs[0] if len(outputs) == 1 else outputs or {"success": True}, action)

    async def _object(self, action: Action, target: Target) -> Any:
        if action.object is not None:
            return await self._node(action.object, target)
        return await self._node(replace(action.place, node_id="", steps=action.place.steps[:-1]), target)

    async def _declared(self, method_id: Any) -> list[Any] | None:
        """The method's InputArguments, empty when it has none; None when the server does not say what they are."""
        parameters = ua.BrowseParameters(
            NodesToBrowse=[
                ua.BrowseDescription(
                    NodeId=method_id,
                    ReferenceTypeId=ua.NodeId(ua.ObjectIds.HasProperty),
                    NodeClassMask=ua.NodeClass.Variable,
                    ResultMask=ua.BrowseResultMask.BrowseName,
                )
            ]
        )
        [result] = await self._link.session.browse(parameters)
        if not result.StatusCode.is_good():
            return None
        for reference in result.References or ():
            if reference.BrowseName.Name == _ARGUMENTS:
                [value] = await self._link.read([reference.NodeId])
                found = value.Value.Value if value.Value is not None else None
                return list(found) if isinstance(found, list) else None
        return []

    async def _argument(self, value: Json, declared: Any, action: Action) -> Any:
        if declared is None:
            return ua.Variant(value)
        kind = await self._variant_type(declared.DataType)
        is_array = declared.ValueRank >= 0 or (declared.ValueRank != _SCALAR and isinstance(value, list))
        if kind is ua.VariantType.Variant:
            return ua.Variant(value)
        template = None
        if kind is ua.VariantType.ExtensionObject:
            cls = ua.extension_objects_by_datatype.get(declared.DataType)
            template = cls() if cls is not None else None
        return _variant(value, kind, is_array, template, f"{action.place.text}, argument {declared.Name}")


def _variant(value: Json, kind: Any, is_array: bool, template: Any, what: str) -> Any:
    try:
        return as_variant(value, kind, is_array=is_array, template=template)
    except MappingError as error:
        raise MappingError(f"{what}: {error}") from None


def _values(action: Action, document: Json, declared: Sequence[Any] | None) -> list[Json]:
    """The arguments in the method's order. Raises: MappingError."""
    if action.args is not None:
        return [_picked(arg, document) for arg in action.args]
    params = action.value.first(document, None)
    if isinstance(params, list):
        return params
    if isinstance(params, dict) and declared:
        missing = [str(one.Name) for one in declared if one.Name not in params]
        if missing:
            raise MappingError(f"the method's argument '{missing[0]}' is missing in params")
        return [params[one.Name] for one in declared]
    is_nothing = params is None or params == {}
    return [] if is_nothing else [params]


def _picked(arg: Path | Json, document: Json) -> Json:
    if not hasattr(arg, "first"):
        return arg
    value = arg.first(document, MISSING)
    if value is MISSING:
        raise MappingError(f"an argument is missing in params {shown(document.get('params'))}")
    return value


def _check(status: Any, what: str, link: Link) -> None:
    """Raises: Trouble, with `what` before the reason."""
    if status is not None and status.is_bad():
        raise Trouble(f"{what}: {in_words(ua.UaStatusCodeError(status.value), link.settings)}")


def _bounded(json: Json, action: Action) -> Json:
    if len(msgspec.json.encode(json)) > MAX_VALUE_BYTES:
        raise MappingError(f"{action.place.text}: the answer has more than {MAX_VALUE_BYTES // 1024} KiB")
    return json
