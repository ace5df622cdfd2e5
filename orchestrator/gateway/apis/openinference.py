"""How does the Open Inference Protocol (KServe V2) name and ask the model? GET /v2, GET /v2/models/…, POST /v2/models/…/infer. Pure.

One model is served, under its id or the last part of it, in one version. Which tensors it takes is in signatures.py, how they lie in
a body in tensors.py. Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, NotRequired, TypedDict
from urllib.parse import unquote

from orchestrator import __version__
from orchestrator.gateway.apis import outputs, signatures, tensors
from orchestrator.gateway.apis.call import Body, Call, Served, dumps
from orchestrator.gateway.apis.tensor_tasks import Outputs
from orchestrator.gateway.apis.tensors import Asked
from orchestrator.gateway.errors import Refusal
from orchestrator.status import ModelStatus
from workers.wire import PRIORITIES

MODELS: Final = "/v2/models/"
VERSION: Final = "1"
"""What clients that name one send. Which weights these are says the digest in GET /info."""
EXTENSIONS: Final = ("binary_tensor_data",)


class ServerMetadata(TypedDict):
    name: str
    version: str
    extensions: list[str]


class MetadataTensor(TypedDict):
    """A size of -1 may be any. Parameters: `optional`; `instead_of` another input; `for` which input an output is given."""

    name: str
    datatype: str
    shape: list[int]
    parameters: NotRequired[dict[str, Any]]


class ModelMetadata(TypedDict):
    name: str
    versions: list[str]
    platform: str
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]


class ModelReady(TypedDict):
    name: str
    ready: bool


_ACTIONS: Final = ("infer", "ready")


class Place(NamedTuple):
    """What a path under /v2/models/ names."""

    model: str
    version: str | None
    action: str
    """infer, ready, or empty: the metadata."""

    @property
    def pattern(self) -> str:
        version = "" if self.version is None else "/versions/{version}"
        return f"{MODELS}{{model}}{version}{'/' if self.action else ''}{self.action}"


def place(path: str) -> Place | None:
    """None where no model is named. Ids of models have slashes, and clients send them as they are or percent-encoded."""
    parts = path.removeprefix(MODELS).split("/")
    action = parts.pop() if len(parts) > 1 and parts[-1] in _ACTIONS else ""
    version = None
    if len(parts) > 2 and parts[-2] == "versions":
        version = unquote(parts.pop())
        parts.pop()
    model = unquote("/".join(parts))
    return Place(model, version, action) if model and version != "" else None


def require(at: Place | None, model: ModelStatus) -> None:
    """Refusal (404) for another model or version than the one that is served."""
    if at is None:
        raise Refusal("not_found", f"no model is named; {model.id!r} is served")
    if at.model not in (model.id, model.id.rpartition("/")[2]):
        raise Refusal("not_found", f"model {at.model[:200]!r} is not served here, {model.id!r} is")
    if at.version not in (None, VERSION):
        raise Refusal("not_found", f"version {at.version!r:.80} of {model.id!r} is not served here, {VERSION!r} is")


def server() -> bytes:
    """GET /v2."""
    said: ServerMetadata = {"name": "orchestrator", "version": __version__, "extensions": list(EXTENSIONS)}
    return dumps(said)


def metadata(served: Served) -> bytes:
    """GET /v2/models/NAME. The inputs of the first form; those of the other one and optional ones say so in their parameters."""
    model = served.model
    first, *others = signatures.forms(served)
    inputs = _described(first.required) + _described(first.optional, optional=True)
    outputs = _described(first.outputs)
    known = {spec.name for spec in first.outputs}
    for other in others:
        instead = {"instead_of": first.required[0].name}
        inputs += _described(other.required, **instead) + _described(other.optional, **instead, optional=True)
        more = _described(other.outputs, **{"for": other.required[0].name})
        outputs += [one for one in more if one["name"] not in known]
    found: ModelMetadata = {
        "name": model.id,
        "versions": [VERSION],
        "platform": f"{model.engine}_onnx",
        "inputs": inputs,
        "outputs": outputs,
    }
    return dumps(found)


def _described(specs: tuple[signatures.Spec, ...], **parameters: Any) -> list[MetadataTensor]:
    found: list[MetadataTensor] = []
    for spec in specs:
        one: MetadataTensor = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
        if parameters:
            one["parameters"] = parameters
        found.append(one)
    return found


def ready(model: ModelStatus) -> bytes:
    """GET /v2/models/NAME/ready, where it is."""
    said: ModelReady = {"name": model.id, "ready": True}
    return dumps(said)


def infer(body: bytes, served: Served, header_length: int | None) -> Call:
    """POST /v2/models/NAME/infer. `header_length`: bytes of the JSON in front of binary tensors; None: all is JSON."""
    asked = tensors.read(body, header_length)
    form = signatures.form_of(asked, served)

    def finish(given: Outputs) -> Body:
        return outputs.written(asked, served.model.id, VERSION, given)

    call = form.call(asked, served, finish)
    call.timeout_seconds = _timeout(asked)
    call.priority = _priority(asked)
    return call


def _timeout(asked: Asked) -> float | None:
    """Triton's clients send microseconds; 0 = none."""
    timeout = asked.parameters.get("timeout")
    if timeout is None or timeout == 0:
        return None
    if type(timeout) is not int or timeout < 0:
        raise Refusal("malformed", f"parameters.timeout: {timeout!r:.40}, expected a whole number of microseconds")
    return timeout / 1e6


def _priority(asked: Asked) -> int | None:
    """Triton's clients send 1 for the most urgent, 0 = as every other request."""
    priority: Any = asked.parameters.get("priority")
    if priority is None or priority == 0:
        return None
    if type(priority) is not int or not 1 <= priority <= len(PRIORITIES):
        known = ", ".join(f"{number} ({name})" for number, name in enumerate(PRIORITIES, 1))
        raise Refusal("unprocessable", f"parameters.priority: {priority!r:.40} is unknown; known are 0 (none), {known}")
    return priority - 1
