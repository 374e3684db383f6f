"""Words of the generator, computed with Python integers."""

from funcnet import random

WORDS = 2**64


GAMMA, M1, M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def unshifted(word, bits):
    """Solve z ⊕ z>>bits = word for z."""
    z = word
    for _ in range(64 // bits):
        z = word ^ z >> bits
    return z


def key_of_first_word(word):
    """Return the key whose first draw is the given word, by inverting the generator."""
    z = unshifted(word, 31) * pow(M2, -1, WORDS) % WORDS
    z = unshifted(z, 27) * pow(M1, -1, WORDS) % WORDS
    return random.key(unshifted(z, 30) - GAMMA)
