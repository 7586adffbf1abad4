"""Examples are taken by the schemas that validate; `tests/fuzz` sends them for real."""

from config.settings import ExecutionSettings
from orchestrator.api_docs.document import ALL
from orchestrator.schemas import Schemas


def test_each_example_of_a_body_is_taken() -> None:
    published = Schemas(ExecutionSettings(), {}).published
    bodies = [each for each in ALL if each.body]
    assert len(bodies) == 5
    for operation in bodies:
        for name, example in operation.examples.items():
            assert published[str(operation.body)].validate(example) == {}, name
