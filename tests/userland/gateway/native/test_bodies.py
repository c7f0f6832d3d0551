"""The bodies of routes that are not derived from a call: each belongs to a route, and each route with one has it."""

from __future__ import annotations

from starlette.routing import Route

from llmos.userland.gateway.core.app import all_routes
from llmos.userland.gateway.native.bodies import BODIES, EMPTY, FORMS
from llmos.userland.gateway.native.scopes import CALLS
from llmos.userland.gateway.native.schemas import components

ROUTES = [route for route in all_routes() if isinstance(route, Route)]


def test_every_body_belongs_to_a_route() -> None:
    paths = {route.path for route in ROUTES}
    assert not {*BODIES, *FORMS, *EMPTY} - paths


def test_every_route_that_is_posted_to_has_a_body_or_none() -> None:
    posted = {route.path for route in ROUTES if "POST" in (route.methods or ())}
    derived = {f"/api/v1/{name}" for name in CALLS}
    known = derived | BODIES.keys() | FORMS | EMPTY
    # Tensors and the form of the login are described where they are taken; two kinds of media are not offered.
    others = {path for path in posted - known if not path.startswith(("/v2/models/", "/dashboard/"))}
    assert others == {"/v1/audio/speech", "/v1/images/generations"}


def test_two_bodies_of_one_name_stay_apart() -> None:
    schemas, named = components(BODIES)
    ours, theirs = named["/v1/chat/completions"]["$ref"], named["/api/chat"]["$ref"]
    assert ours != theirs
    for path, reference in named.items():
        properties = schemas[reference["$ref"].rpartition("/")[2]]["properties"]
        assert properties.keys() == set(BODIES[path].__struct_encode_fields__), path
