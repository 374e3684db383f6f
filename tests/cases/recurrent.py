"""Recurrent cells and nets."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

CELLS = {
    "RNNCell": case(fn.RNNCell(3, 2), (normal(4, 3), normal(4, 2))),
    "RNNCell relu, no state": case(fn.RNNCell(3, 2, nonlinearity="relu", bias=False), normal(4, 3)),
    "LSTMCell": case(fn.LSTMCell(3, 2), (normal(4, 3), (normal(4, 2), normal(4, 2)))),
    "LSTMCell, one row alone": loose(fn.LSTMCell(2, 3, bias=False), normal(2)),
    "GRUCell": case(fn.GRUCell(3, 2), (normal(4, 3), normal(4, 2))),
    "GRUCell of size 1, no state": case(fn.GRUCell(1, 1), normal(2, 1)),
}

LENGTHS = torch.tensor([3, 1])

NETS = {
    "RNN": loose(fn.RNN(3, 2), (normal(4, 2, 3), normal(1, 2, 2))),
    "RNN relu, both ways, lengths": loose(
        fn.RNN(2, 2, nonlinearity="relu", bidirectional=True), (normal(3, 2, 2), None, LENGTHS)
    ),
    "LSTM": case(fn.LSTM(3, 2, batch_first=True), normal(2, 3, 3)),
    "LSTM, two layers, both ways, projected": loose(
        fn.LSTM(2, 3, 2, bidirectional=True, proj_size=2), (normal(3, 2, 2), (normal(4, 2, 2), normal(4, 2, 3)))
    ),
    "LSTM, lengths": case(fn.LSTM(2, 2, batch_first=True, bias=False), (normal(2, 3, 2), None, LENGTHS)),
    "LSTM with dropout": loose(fn.LSTM(2, 2, 2, dropout=0.4), normal(2, 3, 2)),
    "GRU": case(fn.GRU(3, 2, batch_first=True), normal(3, 2, 3)),
    "GRU, both ways, state and lengths": loose(fn.GRU(2, 2, bidirectional=True), (normal(3, 2, 2), normal(2, 2, 2), LENGTHS)),
    "GRU, one sequence of one step": loose(fn.GRU(3, 2, bias=False), (normal(1, 3), normal(1, 2))),
}

CASES = {**CELLS, **NETS}
