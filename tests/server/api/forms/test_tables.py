"""Tests of the tables of fields, against the forms that they are about."""

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from skipserve.api.asking_routes import router
from skipserve.api.errors import form_of
from skipserve.api.fields_page import OTHERS
from skipserve.api.paths import CHAT
from skipserve.api.policy_routes import router as policy_router
from skipserve.api.wire import BodyForm

pytestmark = pytest.mark.fast


def forms() -> Iterator[tuple[str, type[BodyForm]]]:
    """Yield the paths of all routes that take a body, with its form."""
    for route in (*router.routes, *policy_router.routes):
        if isinstance(route, APIRoute) and "POST" in (route.methods or ()):
            form = form_of(route)
            assert form is not None
            yield route.path, form


FORMS = dict(forms())


@pytest.mark.parametrize("path", FORMS)
def test_a_form_takes_what_its_table_calls_honoured(path: str) -> None:
    form = FORMS[path]
    assert form.field_table.honoured == {
        field.alias or name for name, field in form.model_fields.items()
    }


@pytest.mark.parametrize("path", FORMS)
def test_each_field_stands_there_once(path: str) -> None:
    for table in FORMS[path].field_table.walk():
        assert len(table.by_name) == len(table.rows)
        assert all(row.says for row in table.rows)


@pytest.mark.parametrize("path", FORMS)
def test_the_schema_tells_what_is_taken_besides(path: str) -> None:
    form = FORMS[path]
    properties = form.model_json_schema()["properties"]
    assert properties.keys() == form.field_table.by_name.keys()


def test_the_page_tells_of_every_form() -> None:
    assert {path: form.field_table for path, form in FORMS.items() if path != CHAT} == OTHERS
