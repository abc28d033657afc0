"""The objects of profile pet/1 and their bytes: enrolments, round records, committees, updates, certificates.

Every reader is strict, and refuses with RemoteProtocolError and the reason that docs/spec/profile.md names. What the parties do
with the objects, and when, is none of this package's business; it keeps no state, and knows no clock and no randomness.

Reading order: hashes, enrolment, round_record, messages, committee, proofs, share_header, leaves, manifest, checks,
certificate.
"""
