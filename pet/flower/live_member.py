"""A member's machine between two messages that come to one process: what it checked for the first, it need not check again.

Where every message is a new process, or another process went on meanwhile, a machine is made from the stored state.
"""

from __future__ import annotations

import os
from typing import Final

from pet.flower.identity import NodeIdentity
from pet.pet1.enrolment import EnrolmentPolicy
from pet.protocol import pet1_member
from pet.protocol.pet1_member import MemberMachine


class LiveMember:
    """A machine, and what it stored last.

    Args:
        identity: of the node, with the context of the message at hand.
        policy: what the node asks of enrolments.
    """

    def __init__(self, identity: NodeIdentity, policy: EnrolmentPolicy) -> None:
        self._identity, self._policy = identity, policy
        self._saved = identity.saved(pet1_member.ROLE)
        self.machine: Final = MemberMachine(
            signing_key=identity.key, policy=policy, entropy=os.urandom, store=self._store, saved=self._saved
        )

    def goes_on(self, identity: NodeIdentity, policy: EnrolmentPolicy) -> bool:
        """Return whether the machine can answer the next message, whose context it stores in from now on.

        It can if nobody else has stored anything meanwhile, and the node asks for the same.
        """
        self._identity = identity
        return policy == self._policy and identity.saved(pet1_member.ROLE) == self._saved

    def _store(self, data: bytes) -> None:
        self._identity.store(pet1_member.ROLE)(data)
        self._saved = data
