"""Prints the OpenAPI document of the server that the environment configures.

python -m service.http.openapi > openapi.json
"""

import json

from service.http.app import create_app
from service.observe.logs import configure_logs


def main() -> None:
    """Print the document; log lines go to standard error."""
    configure_logs("console", "warning")
    print(json.dumps(create_app().openapi(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
