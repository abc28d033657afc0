"""From settings to an application that a server can run: the one place where engine, service and HTTP routes meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.transports import asgi

if TYPE_CHECKING:
    from starlette.applications import Starlette


def create_app(settings: Settings) -> Starlette:
    """Return an ASGI application that runs a coordinator while its lifespan lasts; `app.state.service` is its service.

    To mount it in another application, see `pet.transports.asgi.create_app`.

    Raises:
        ConfigError: the protocol refuses the settings.
    """
    service = CoordinatorService.from_settings(settings)
    app = asgi.create_app(service)
    app.state.service = service
    return app
