"""Randomness as data: a key is a 0-d int64 tensor, and every draw is a pure function of a key.

The generator is SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"): draw
number i of a key is mix(key + i γ), i = 1, 2, ..., with γ = 0x9E3779B97F4A7C15 and, on 64-bit words,

    mix(z):  z ← (z ⊕ z>>30) · 0xBF58476D1CE4E5B9;  z ← (z ⊕ z>>27) · 0x94D049BB133111EB;  z ⊕ z>>31

All of it is tensor arithmetic: a key gives the same bits on every device, in eager and compiled code and under ``vmap``. Normal
draws are equal up to the rounding of erf⁻¹, Gumbel and exponential draws up to the rounding of the logarithm. The same key gives
the same draw every time: ``split`` it, or ``fold_in`` a number, to get others.

In all functions ``rng`` is a key or an int seed, ``shape`` a tuple of whole numbers, () for a single draw, and ``dtype`` a
floating dtype, by default torch's default. Anything else raises ``ValueError``.
"""

from funcnet.random.continuous import exponential as exponential
from funcnet.random.continuous import gumbel as gumbel
from funcnet.random.continuous import normal as normal
from funcnet.random.continuous import truncated_normal as truncated_normal
from funcnet.random.continuous import uniform as uniform
from funcnet.random.discrete import bernoulli as bernoulli
from funcnet.random.discrete import categorical as categorical
from funcnet.random.discrete import choice as choice
from funcnet.random.discrete import permutation as permutation
from funcnet.random.discrete import randint as randint
from funcnet.random.keys import Key as Key
from funcnet.random.keys import as_key as as_key
from funcnet.random.keys import bits as bits
from funcnet.random.keys import fold_in as fold_in
from funcnet.random.keys import key as key
from funcnet.random.keys import split as split
