"""A peer as it is shown: the entity `FederationInfo`, the flags of a project, sync statistics. Secrets are left out.

Source: docs/spec/federation.md 2.5, 2.16.
"""

from __future__ import annotations

from typing import Any

from pet.errors import FederationStateError
from pet.federation.peer_store import PeerStore
from pet.federation.records import ContractRecord, FailureAction, FederationRecord, LogKind, MemberList, Mode
from pet.federation.runtime import FederationPeer


def federation_info(peer: FederationPeer) -> dict[str, Any]:
    """Return `FederationInfo`: strings, booleans, and the map `peersInfo`. No credential of the broker, no federation key."""
    record, terms = peer.record, peer.record.terms
    return {
        "fed_name": terms.name,
        "fed_type": "nats",
        "fed_id": terms.federation_id,
        "fed_mode": terms.mode,
        "fed_local_id": record.project_id,
        "local_uuid": record.keys.uuid,
        "sync_sched": terms.schedule.text,
        "contract": "\n".join(terms.contract.lines),
        "snd_error_action": record.send_failure_action,
        "rcv_error_action": record.receive_failure_action,
        "fed_use_smpc": _text(terms.uses_smpc),
        "fed_encrypt": _text(terms.encrypts),
        "fed_local_type": record.local_type,
        "fed_project_kind": terms.kind,
        "fed_key_epoch": str(terms.key_epoch),
        "fed_is_admin": _text(record.is_admin),
        **record.nats.to_entries(),
        "nats_state": peer.broker_state,
        "is_pulsing": record.is_pulsing,
        "allow_peers_explore": record.allows_explore,
        "peersInfo": {member.uuid: member.label for member in record.peers},
        **({"fed_warnings": found} if (found := [*warnings_of(record), *_waiting(peer)]) else {}),
        **({"fed_schema": terms.schema} if terms.schema is not None else {}),
    }


def project_info(peer: FederationPeer, store: PeerStore) -> dict[str, Any]:
    """Return the entity `smlInfo` of a federated project."""
    record = peer.record
    flags = {
        "fed_pulsing": record.is_pulsing,
        "fed_has_error": bool(store.log_lines(LogKind.ERROR)),
        "fed_is_admin": record.is_admin,
    }
    return {
        "id": record.project_id,
        "type": f"FED-{record.local_type.upper()}",
        "params": {name: _text(flag) for name, flag in flags.items()},
    }


def sync_statistics(peer: FederationPeer, store: PeerStore) -> dict[str, Any]:
    """Return the entity `fedSyncStats`."""
    counts = peer.statistics
    return {
        "sndCount": counts.send_count,
        "sndContractError": counts.send_contract_errors,
        "rcvCount": counts.receive_count,
        "rcvError": counts.receive_errors,
        "rcvContractError": dict(counts.receive_contract_errors),
        "errorLog": store.log_lines(LogKind.ERROR),
        "syncLog": store.log_lines(LogKind.SYNC),
    }


def member_list(found: MemberList) -> dict[str, Any]:
    """Return the entity `members`."""
    members = [
        {
            "name": member.name,
            "uuid": member.uuid,
            "fingerprint": member.fingerprint,
            "isConfirmed": member.is_confirmed,
            "isThis": member.is_this,
            "isAdmin": member.is_admin,
        }
        for member in found.members
    ]
    return {"code": found.code, "confirm": found.confirm, "members": members}


def row_counts(peer: FederationPeer) -> dict[str, Any]:
    """Return how many rows this peer learned and the others hold, what is held back, and its unfinished tables."""
    project = peer.local_project
    try:
        learned = project.row_count
    except FederationStateError:  # no schema yet
        learned = 0
    pending = [
        {
            "request": unit.request,
            "change": unit.change,
            "pieces": unit.pieces,
            "rows": unit.rows,
            "idleSeconds": round(unit.idle_seconds, 1),
        }
        for unit in project.pending
    ]
    held = project.held_back
    held_back = None if held is None else {"rows": held.rows, "least": held.least, "forgets": held.forgets}
    return {
        "learned": learned,
        "shared": peer.shared_rows,
        "tables": project.table_count,
        "pending": pending,
        "heldBack": held_back,
    }


def contract_state(peer: FederationPeer) -> dict[str, Any]:
    """Return the contract that counts at a peer, and the change that waits for consent, if there is one."""

    def shown(contract: ContractRecord | None) -> dict[str, Any] | None:
        return None if contract is None else {"lines": list(contract.lines), "number": contract.counter}

    record = peer.record
    return {
        "contract": shown(record.terms.contract),
        "proposed": shown(peer.proposed_contract),
        "acceptsContracts": record.accepts_contracts,
    }


def warnings_of(record: FederationRecord) -> list[str]:
    """Return what a peer's user has to know of how far it is protected, one sentence each."""
    found = []
    if record.terms.uses_smpc and record.terms.mode is Mode.COMPAT:
        found.append(
            "in compatibility mode the rule of minimum rows is for all peers together: a member that synchronises before and "
            "after another peer learns a few rows can work these out"
        )
    if record.terms.uses_smpc and record.send_failure_action is FailureAction.ALLOW:
        found.append("fed_psr_contract_snd_fail_action has no effect with SMPC: contracts are evaluated on aggregates only")
    return found


def _waiting(peer: FederationPeer) -> list[str]:
    """Return what a synchronisation waits for: only the admin leads rounds (docs/decisions/0009-the-admin-leads.md)."""
    return [] if peer.waits_for_admin is None else [peer.waits_for_admin]


def _text(flag: bool) -> str:
    return str(flag).lower()
