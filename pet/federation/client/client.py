"""The client of a federation server: create, invite, join, pulse, learn rows, ask for statistics.

Every call is one signed request; maps are encrypted on top of TLS, and nothing secret is in a URL, an error or a log. Native
formats by default; `compat=True` speaks the vendor's, for servers that know no others.

Source: docs/spec/federation.md 2, 4.2.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationUnavailableError, FederationValueError
from pet.federation.client.entities import contract_state, figure_of_pair, figures, members, regression, row_counts, strings
from pet.federation.client.requests import SignedRequests
from pet.federation.client.row_upload import RowUpload
from pet.federation.formats import invitation
from pet.federation.formats.encoding import parse_json_object
from pet.federation.formats.learning_records import Change
from pet.federation.formats.numbers import to_finite_floats, to_floats
from pet.federation.formats.users import read_key_file
from pet.federation.records import MemberList, Mode, ProjectKind
from pet.federation.runtime import Regression
from pet.federation.statistics.figures import Figure, Figures
from pet.federation.statistics.schema import Schema
from pet.numbers import checked_number
from pet.secret import Secret

#: A join waits for the broker and the admin, 30 s by default; the server answers a little later than that.
#: Longer than a server takes to start, also on a busy machine.
DEFAULT_START_SECONDS: Final = 15.0
DEFAULT_TIMEOUT_SECONDS: Final = 60.0
#: 20 characters of base64url: 120 bits.
_PASSWORD_BYTES: Final = 15
_COMPAT_PASSWORD_BYTES: Final = 12
_Found = TypeVar("_Found")


class Client:
    """One user's calls to one server. Not thread-safe."""

    def __init__(
        self,
        url: str,
        customer_id: str,
        secret_key: Secret | str,
        *,
        authority: Path | None = None,
        compat: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        start_seconds: float = DEFAULT_START_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: of the server, for example "https://node.example:8443". Plain http only to this machine.
            customer_id: the user.
            secret_key: base64 text, from `pet federation user add`.
            authority: PEM file of the only authority to trust; the system's if not given.
            compat: speak the vendor's formats, which are weak.
            timeout_seconds: for each request.
            start_seconds: how long each request waits for a server that does not listen yet.
            clock: Unix seconds.

        Raises:
            FederationValueError: the URL or the key cannot be used.
        """
        self._mode: Final = Mode.COMPAT if compat else Mode.NATIVE
        self._requests: Final = SignedRequests(
            url,
            customer_id,
            secret_key if isinstance(secret_key, Secret) else Secret(secret_key),
            mode=self._mode,
            authority=authority,
            timeout_seconds=timeout_seconds,
            start_seconds=start_seconds,
            clock=clock,
        )

    @classmethod
    def from_key_file(cls, url: str, path: Path | str, *, authority: Path | None = None, compat: bool = False) -> Self:
        """Make a client with user and key from the file that `pet federation user add` wrote.

        Raises:
            SettingsError: the file is something else, or others can read it.
            FederationValueError: the URL cannot be used.
        """
        name, key = read_key_file(Path(path))
        return cls(url, name, key, authority=authority, compat=compat)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._requests.url!r}, {self._requests.customer_id!r})"

    def close(self) -> None:
        """Give back connections."""
        self._requests.close()

    def create(
        self, project_id: str, name: str, *, nats_hosts: str, schedule: str = "h1", persist: bool = True, **options: object
    ) -> None:
        """Create a federation, as its admin.

        Args:
            project_id: a new name for the federated project on the server.
            name: of the federation, for people.
            nats_hosts: URL of the broker, or several with commas between.
            schedule: "m30", "h3", "d7": every 30 minutes, 3 hours, 7 days.
            persist: whether the server remembers the project after a restart.
            **options: further keys of docs/spec/federation.md 2.4, for example fed_schema, nats_sec_token, fed_use_smpc.
        """
        entries = {"fed_name": name, "sync_sched": schedule, "nats_hosts": nats_hosts}
        self._post("create", entries | _texts(options), query={"pid": project_id, "persist": _text(persist)})

    def invite(
        self,
        project_id: str,
        password: Secret | str | None = None,
        *,
        lifespan_hours: float | None = None,
        peer_key: str | None = None,
        rest_host: str | None = None,
    ) -> tuple[str, Secret | None]:
        """Make an invitation for one future peer.

        Args:
            project_id: the federated project; its server must be the admin's.
            password: at least 12 characters; drawn if not given.
            lifespan_hours: how long it can be used, 2 if not given.
            peer_key: what `join_key` of the future peer's server gave; then there is no password.
            rest_host: base URL under which peers reach this server, for clients that ask for it.

        Returns:
            The invitation and its password. Send them by two different channels.
        """
        entries: dict[str, str] = {}
        secret: Secret | None = None
        if peer_key is not None:
            entries["peer_key"] = peer_key
        else:
            secret = password if isinstance(password, Secret) else Secret(password or self._new_password())
            entries["passwd"] = secret.reveal()
        if lifespan_hours is not None:
            hours = checked_number(lifespan_hours, "lifespan_hours", error=FederationValueError)
            entries["fed_token_lifespan_hours"] = repr(float(hours))
        if rest_host is not None:
            entries["fed_rest_host"] = rest_host
        name = "getEncrypted" if self._mode is Mode.COMPAT else "getInvitation"
        values = self._post(f"{project_id}/{name}", entries)
        return self._read(values, lambda found: str(found.get("encryptedGroupInfo") or found["fedInfoEncrypted"])), secret

    def join(
        self,
        project_id: str,
        text: str,
        password: Secret | str | None = None,
        *,
        admin_key: str | None = None,
        persist: bool = True,
        accept_contracts: bool = False,
        least_rows: int | None = None,
        **own: object,
    ) -> None:
        """Join a federation.

        Args:
            project_id: a new name for the federated project on the server.
            text: the invitation.
            password: what it was made with. It is opened here: the server learns the contents, not the password.
            admin_key: instead of a password: the admin's public signing key, for an invitation made for the server's key.
            persist: whether the server remembers the project after a restart.
            accept_contracts: whether a contract that the admin changes counts here without `accept_contract`.
            least_rows: this peer's own limit of the rule of minimum rows; the schema's if not given.
            **own: keys of this peer, which win over the invitation's, for example nats_hosts.
        """
        if admin_key is not None:
            entries = {"fed_info_encrypted": text, "fed_admin_key": admin_key}
        else:
            if password is None:
                raise FederationValueError("expected the password of the invitation, got none", key="passwd")
            secret = password if isinstance(password, Secret) else Secret(password)
            if invitation.is_native(text):
                _, entries = invitation.open_with_password(text, secret)
            else:
                entries = {"fed_mode": Mode.COMPAT.value} | invitation.open_compatible(text, secret)
        query = {"pid": project_id, "persist": _text(persist), "acceptContracts": _text(accept_contracts)}
        if least_rows is not None:
            query["leastRows"] = str(least_rows)
        self._post("createJoin", entries | _texts(own), query=query)

    def join_key(self) -> str:
        """Return the public key of this server, for `invite(peer_key=...)`."""
        return self._read(self._get("joinKey"), lambda found: str(found["joinKey"]))

    def projects(self) -> list[str]:
        """Return the names of this user's projects on the server."""
        return self._read(self._get(""), strings)

    def info(self, project_id: str) -> dict[str, Any]:
        """Return the federation as the peer sees it (`FederationInfo`)."""
        values = self._requests.call("GET", f"fedml/{project_id}/info", decrypts="fedInfoEncrypted")
        return parse_json_object(values["fedInfoEncrypted"]) or {}

    def flags(self, project_id: str) -> dict[str, bool]:
        """Return fed_pulsing, fed_has_error and fed_is_admin."""
        values = self._requests.call("GET", f"projects/{project_id}/info")
        return self._read(values, lambda found: {name: value == "true" for name, value in found["smlInfo"]["params"].items()})

    def start_pulse(self, project_id: str) -> None:
        """Let the peer take part in synchronisations."""
        self._post(f"{project_id}/startPulse")

    def stop_pulse(self, project_id: str) -> None:
        """Stop the peer from taking part."""
        self._post(f"{project_id}/stopPulse")

    def sync_now(self, project_id: str) -> None:
        """Ask all to synchronise now, outside the schedule."""
        self._post(f"{project_id}/fullSyncRequest")

    def new_schedule(self, project_id: str, schedule: str) -> None:
        """Change the schedule for all peers; admin only."""
        self._post(f"{project_id}/newSchedule", query={"newSchedule": schedule})

    def set_contract(self, project_id: str, lines: Sequence[str]) -> None:
        """Replace the contract of all peers; admin only."""
        self._send(f"{project_id}/addContract", json.dumps({"values": list(lines)}).encode())

    def validate_contract(self, project_id: str, lines: Sequence[str]) -> str | None:
        """Return what is wrong with a contract, or None."""
        values = self._send(f"{project_id}/contractValidate", json.dumps({"values": list(lines)}).encode())
        return self._read(values, lambda found: None if found.get("status") is None else str(found["status"]))

    def contract(self, project_id: str) -> dict[str, Any]:
        """Return the `contract` that counts at this peer, and a change that waits for consent as `proposed`, or None.

        Each has `lines` and the `number` of the change.
        """
        return self._read(self._get(f"{project_id}/contract"), contract_state)

    def accept_contract(self, project_id: str, number: int) -> None:
        """Let the change of the contract with this number count at this peer."""
        self._post(f"{project_id}/acceptContract", query={"number": str(number)})

    def set_least_rows(self, project_id: str, least_rows: int) -> None:
        """Set the peer's own limit of the rule of minimum rows: fewer rows show more of each; 0 for the schema's."""
        self._post(f"{project_id}/setLeastRows", query={"rows": str(least_rows)})

    def allow_explore(self, project_id: str, *, allowed: bool) -> None:
        """Let the other peers explore the local project, or not."""
        self._post(f"{project_id}/setExplorePeers", query={"allowExplore": _text(allowed)})

    def sync_log(self, project_id: str) -> list[str]:
        """Return the sync log, newest last."""
        return self._read(self._get(f"{project_id}/getSyncLog"), strings)

    def error_log(self, project_id: str) -> list[str]:
        """Return the error log, newest last."""
        return self._read(self._get(f"{project_id}/getErrorLog"), strings)

    def clear_error_log(self, project_id: str) -> None:
        """Empty the error log."""
        self._requests.call("DELETE", f"fedml/{project_id}/clearErrorLog")

    def statistics(self, project_id: str) -> dict[str, Any]:
        """Return the counts of sent and received synchronisations (`fedSyncStats`)."""
        return self._read(self._get(f"{project_id}/syncStats"), lambda found: dict(found["fedSyncStats"]))

    def leave(self, project_id: str) -> None:
        """Leave the federation; the project is gone afterwards."""
        self._post(f"{project_id}/leave")

    def delete(self, project_id: str) -> None:
        """End the federation for everybody; admin only."""
        self._post(f"{project_id}/delete")

    def remove_peer(self, project_id: str, member: str) -> None:
        """Remove another peer, by name or fingerprint; the rest get a new federation key; admin only."""
        self._post(f"{project_id}/removePeer", query={"peer": member})

    def set_credentials(self, project_id: str, **options: object) -> None:
        """Give a peer another credential of the broker, or other hosts; it connects anew with it.

        Args:
            project_id: the federated project.
            **options: nats_hosts; nats_sec_user with nats_sec_passwd, nats_sec_token, or nats_sec_nkey_seed.

        Raises:
            FederationRefusedError: the broker refuses the credential; the old one is kept.
        """
        self._post(f"{project_id}/credentials", _texts(options))

    def members(self, project_id: str) -> MemberList:
        """Return the members as the peer sees them, whom it has confirmed, and the code of the whole list."""
        return self._read(self._get(f"{project_id}/members"), members)

    def confirm(self, project_id: str, member: str) -> MemberList:
        """Confirm a member, by its fingerprint (or name), after you compared the fingerprint with its owner.

        Compare by another way than through the admin, who passes the list on.
        """
        return self._read(self._post(f"{project_id}/confirm", query={"member": member}), members)

    def confirm_list(self, project_id: str, code: str) -> MemberList:
        """Confirm all members, after you compared the code of the list with each of them.

        Raises:
            FederationRefusedError: the peer's list has another code; nobody was confirmed.
        """
        return self._read(self._post(f"{project_id}/confirm", query={"list": code}), members)

    def learn(
        self,
        project_id: str,
        rows: Any,
        *,
        names: Sequence[str] | str | None = None,
        again: bool = False,
        request_id: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Let the local project learn a table of any size, whole or not at all, and once.

        Args:
            project_id: the federated project.
            rows: the path of a CSV or Parquet file, or a `pet.federation.CsvTable`, which says encoding, separator and decimal
                mark; columns by name; a pandas or Arrow table; a NumPy array with one or two dimensions, with `names`. Columns
                that are no feature of the federation stay here.
            names: of the columns of an array, in their order.
            again: learn rows although the same were learned already.
            request_id: 16 to 64 letters, digits, "_", "-"; drawn if not given. A call that is repeated with the same one, after
                an answer was lost, counts the rows once, also after a restart of the server.
            progress: called after each piece with the number of rows so far.

        Returns:
            How many rows were learned.

        Raises:
            RowError, FederationValueError: the table is malformed, with line and column; nothing was learned.
            FederationRefusedError: the server refuses it, 409 where the same rows were learned already; nothing was learned.
            FederationUnavailableError: no answer; names the `request_id` to repeat the call with.
        """
        return self._upload(project_id, rows, names, progress).send(Change.LEARN, again=again, request_id=request_id)

    def forget(
        self,
        project_id: str,
        rows: Any,
        *,
        names: Sequence[str] | str | None = None,
        again: bool = False,
        request_id: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Let the local project forget rows that it learned, and return how many.

        Arguments and errors are those of `learn`; `again` forgets rows although the same were forgotten already.
        """
        return self._upload(project_id, rows, names, progress).send(Change.FORGET, again=again, request_id=request_id)

    def row_counts(self, project_id: str) -> dict[str, Any]:
        """Return how many rows were `learned` and are `shared`, how many `tables`, and which are `pending`, with their ids.

        `heldBack` has `rows` and `least` where the rule of minimum rows keeps them from the others, and whether they `forgets`.
        """
        return self._read(self._get(f"{project_id}/rows"), row_counts)

    def cancel_rows(self, project_id: str, request_id: str) -> bool:
        """Drop an unfinished table, of which nothing was learned; False if there is none under this id."""
        values = self._post(f"{project_id}/cancelRows", query={"request": request_id})
        return self._read(values, lambda found: bool(found["cancelled"]))

    def univariate(self, project_id: str, feature: str, *, local: bool = False) -> Figures:
        """Describe a feature, over all peers or in the local project.

        Returns:
            Figures by name; NaN for what is undefined or has no digits, with the reason in `reasons`.
        """
        query = {"feature": feature, "useLocal": _text(local)}
        return self._read(self._get(f"{project_id}/univariate", query), lambda found: figures(found, "univariate"))

    def covariance(self, project_id: str, first: str, second: str, *, local: bool = False) -> Figure:
        """Return the population covariance of two features; NaN, with a `reason`, as in `univariate`."""
        query = {"first": first, "second": second, "useLocal": _text(local)}
        return self._read(self._get(f"{project_id}/covariance", query), lambda found: figure_of_pair(found, "covariance"))

    def correlation(self, project_id: str, first: str, second: str, *, local: bool = False) -> Figure:
        """Return the linear correlation of two features; NaN, with a `reason`, as in `univariate`."""
        query = {"first": first, "second": second, "useLocal": _text(local)}
        return self._read(self._get(f"{project_id}/correlation", query), lambda found: figure_of_pair(found, "correlation"))

    def linear_regression(
        self, project_id: str, target: str, features: Sequence[str] | None = None, *, local: bool = False
    ) -> Regression:
        """Fit one feature on others (None: on all of them), over all peers or in the local project."""
        body = json.dumps({"target": target, "features": None if features is None else list(features)}).encode()
        return self._read(self._send(f"{project_id}/regression", body, {"useLocal": _text(local)}), regression)

    def set_model(self, project_id: str, weights: NDArray[np.float64], weight: float = 1.0) -> None:
        """Give the peer's model vector for the next round, with its weight.

        Args:
            project_id: the federated project.
            weights: a vector of finite numbers, sent as float64.
            weight: a number of Python or NumPy.

        Raises:
            FederationValueError: a number is not finite; nothing was sent.
        """
        model = {
            "weights": to_finite_floats(weights, "weights").tolist(),
            "weight": checked_number(weight, "weight", error=FederationValueError),
        }
        self._send(f"{project_id}/model", json.dumps(model, allow_nan=False).encode())

    def global_model(self, project_id: str) -> NDArray[np.float64]:
        """Return the averaged model of the last round."""
        values = self._get(f"{project_id}/model")
        return self._read(values, lambda found: to_floats(found["model"]["weights"], "weights"))

    def _read(self, values: dict[str, Any], reader: Callable[[dict[str, Any]], _Found]) -> _Found:
        """Read the entities of an answer.

        Raises:
            FederationUnavailableError: they are not what was asked for.
        """
        try:
            return reader(values)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            problem = type(error).__name__
        raise FederationUnavailableError(
            f"{self._requests.url}: expected what was asked for in the answer, got another form ({problem})"
        )

    def _upload(
        self, project_id: str, rows: Any, names: Sequence[str] | str | None, progress: Callable[[int], None] | None
    ) -> RowUpload:
        info = self.info(project_id)
        has_schema = info.get("fed_project_kind") == ProjectKind.STATISTICS and "fed_schema" in info
        schema = self._read(info, lambda found: Schema.from_json(found["fed_schema"])) if has_schema else None
        return RowUpload(
            requests=self._requests,
            read=self._read,
            project_id=project_id,
            rows=rows,
            names=names,
            schema=schema,
            progress=progress,
        )

    def _new_password(self) -> str:
        return secrets.token_urlsafe(_COMPAT_PASSWORD_BYTES if self._mode is Mode.COMPAT else _PASSWORD_BYTES)

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._requests.call("GET", f"fedml/{path}".rstrip("/"), query)

    def _post(
        self, path: str, entries: Mapping[str, str] | None = None, *, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a map, encrypted, or nothing."""
        body = b"" if entries is None else json.dumps(entries).encode()
        return self._requests.call("POST", f"fedml/{path}", query, body, encrypts=entries is not None)

    def _send(
        self, path: str, body: bytes, query: Mapping[str, str] | None = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """Send a body as it is."""
        return self._requests.call("POST", f"fedml/{path}", query, body, content_type=content_type)


def _text(flag: bool) -> str:
    return str(flag).lower()


def _is_flag(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


def _texts(options: Mapping[str, object]) -> dict[str, str]:
    return {
        name: value.reveal() if isinstance(value, Secret) else _text(bool(value)) if _is_flag(value) else str(value)
        for name, value in options.items()
    }
