"""Every proof of this folder."""

from tests.proofs import (
    aligner,
    arbiters,
    divider,
    entry_checks,
    permissions,
    queues,
    register_blocks,
    register_decoder,
    register_file,
    shared_translations,
    translation,
    walk_caches,
    worlds,
)

__all__ = ["PROOFS"]

PROOFS = (
    *queues.PROOFS,
    *arbiters.PROOFS,
    *register_decoder.PROOFS,
    *register_blocks.PROOFS,
    *register_file.PROOFS,
    *aligner.PROOFS,
    *divider.PROOFS,
    *permissions.PROOFS,
    *translation.PROOFS,
    *shared_translations.PROOFS,
    *walk_caches.PROOFS,
    *entry_checks.PROOFS,
    *worlds.PROOFS,
)
