"""Sharded optimizers: each worker holds the state of its pieces of the params only."""

from funcnet.distributed.pieces import Piece, Pieces, pieces_of, with_pieces

__all__ = ["Piece", "Pieces", "pieces_of", "with_pieces"]
