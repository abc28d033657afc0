"""The client of a federation server: create, invite, join, pulse, learn rows, ask for statistics.

Every call is one signed request; maps are encrypted on top of TLS, and nothing secret is in a URL, an error or a log. Native
formats by default; `compat=True` speaks the vendor's, for servers that know no others.

Source: docs/spec/federation.md 2, 4.2.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pet.errors import FederationValueError
from pet.federation.client.entities import contract_state, members, strings
from pet.federation.client.figure_calls import FigureCalls
from pet.federation.client.row_calls import RowCalls
from pet.federation.client.server_calls import query_flag
from pet.federation.formats import invitation
from pet.federation.records import MemberList, Mode
from pet.numbers import checked_number
from pet.secret import Secret

#: 20 characters of base64url: 120 bits.
_PASSWORD_BYTES: Final = 15
_COMPAT_PASSWORD_BYTES: Final = 12


class Client(RowCalls, FigureCalls):
    """One user's calls to one server. Not thread-safe."""

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
        self._post("create", entries | _texts(options), query={"pid": project_id, "persist": query_flag(persist)})

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
        query = {"pid": project_id, "persist": query_flag(persist), "acceptContracts": query_flag(accept_contracts)}
        if least_rows is not None:
            query["leastRows"] = str(least_rows)
        self._post("createJoin", entries | _texts(own), query=query)

    def join_key(self) -> str:
        """Return the public key of this server, for `invite(peer_key=...)`."""
        return self._read(self._get("joinKey"), lambda found: str(found["joinKey"]))

    def projects(self) -> list[str]:
        """Return the names of this user's projects on the server."""
        return self._read(self._get(""), strings)

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
        self._post(f"{project_id}/setExplorePeers", query={"allowExplore": query_flag(allowed)})

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

    def _new_password(self) -> str:
        return secrets.token_urlsafe(_COMPAT_PASSWORD_BYTES if self._mode is Mode.COMPAT else _PASSWORD_BYTES)


def _is_flag(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


def _texts(options: Mapping[str, object]) -> dict[str, str]:
    return {
        name: value.reveal() if isinstance(value, Secret) else query_flag(bool(value)) if _is_flag(value) else str(value)
        for name, value in options.items()
    }
