"""What partners' servers may call, attacked by schemathesis from a description that was written after the RFCs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.relying_party import BASE_URL, Service

SCHEMA = Path(__file__).with_name("openapi.yaml")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def list_operations() -> list[Any]:
    description = schemathesis.openapi.from_dict(yaml.safe_load(SCHEMA.read_text(encoding="utf-8")))
    return [one.ok() for one in description.get_all_operations()]


def test_every_answer_is_one_that_the_rfcs_know(service: Service) -> None:
    for operation in list_operations():
        operation.schema.app = service.bridge.app

        @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def attack(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=BASE_URL, app=service.bridge.app, checks=CHECKS)

        attack()


def test_every_operation_is_described() -> None:
    assert len({one.label for one in list_operations()}) == 6
