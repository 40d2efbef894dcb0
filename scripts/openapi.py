"""Write the API's OpenAPI document to docs/reference/openapi.json: `make openapi`."""

import json
from pathlib import Path

from craftastic.app import build_app
from craftastic.http.health import schema
from craftastic.settings import Settings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "openapi.json"


def document() -> str:
    """Return the document that the server offers, sorted so that changes read well."""
    app = build_app(Settings(_env_file=None))  # type: ignore[call-arg]
    return json.dumps(schema(app), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
    print(TARGET)
