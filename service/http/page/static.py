"""The routes of the page and of the documentation, whose files come with the package.

Nothing is loaded from elsewhere, and the browser is told to allow nothing else.
"""

import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from yolox_client.drawing.colors import palette

HERE: Final = Path(__file__).parent
# Swagger UI; docs/decisions/documentation-page.md says why it comes from there.
SWAGGER_UI: Final = ("fastapi_swagger", "resources")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI writes styles into its elements.
DOCS_POLICY: Final = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")

ABOUT: Final = """\
Send a photo, and get boxes or a picture of them. These are all forms of a request, with
[this photo](docs/parcel.jpg):

```sh
curl -H 'Content-Type: image/jpeg' --data-binary @parcel.jpg http://127.0.0.1:8000/detect
curl -F images=@parcel.jpg -F confidence=0.3 http://127.0.0.1:8000/detect
echo "{\\"images\\": [\\"$(base64 -w 0 parcel.jpg)\\"]}" \\
  | curl -H 'Content-Type: application/json' -d @- http://127.0.0.1:8000/detect
curl -H 'Content-Type: image/jpeg' -H 'Accept: image/jpeg' -o found.jpg \\
  --data-binary @parcel.jpg http://127.0.0.1:8000/detect
```

Where the server wants an API key, add `-H 'X-API-Key: ...'`, and here press *Authorize*.
"""


class Folder:
    """Files that a browser loads; it asks each time whether its copy is still the newest.

    Args:
        files: The files.
        index: The file that is answered where none is named.
        policy: The Content-Security-Policy of all of them.
    """

    def __init__(self, files: StaticFiles, index: str, policy: str) -> None:
        self._files = files
        self._index = index
        self._headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
        }

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return await self.file(self._index, request)

    async def file(self, name: str, request: Request) -> Response:
        """One of its files; 304 to a browser that has it already.

        Raises:
            HTTPException: There is no such file.
        """
        response = await self._files.get_response(name, request.scope)
        response.headers.update(self._headers)
        return response

    async def colors(self, request: Request) -> Response:
        """The colours of the classes, as the server draws them too."""
        colors = ["#%02x%02x%02x" % color for color in palette()]  # noqa: UP031
        response = JSONResponse(colors, headers=self._headers)
        response.headers["ETag"] = f'"{zlib.crc32(response.body):08x}"'
        if self._files.is_not_modified(response.headers, request.headers):
            return NotModifiedResponse(response.headers)
        return response


def page_routes() -> Sequence[APIRoute]:
    """The routes of the page, each counted by its own path or by the pattern."""
    files = StaticFiles(directory=HERE / "assets")
    folder = Folder(files, "index.html", POLICY)
    return [
        _shown("/", folder.index),
        _shown("/page/colors.json", folder.colors),
        _shown("/page/{name}", folder.file),
    ]


def docs_routes() -> Sequence[APIRoute]:
    """The routes of the documentation."""
    files = StaticFiles(directory=HERE / "docs", packages=[SWAGGER_UI])
    folder = Folder(files, "docs.html", DOCS_POLICY)
    return [_shown("/docs", folder.index), _shown("/docs/{name}", folder.file)]


def _shown(path: str, endpoint: Callable[..., Awaitable[Response]]) -> APIRoute:
    """A route for browsers, which no client of the API needs to know."""
    return APIRoute(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
