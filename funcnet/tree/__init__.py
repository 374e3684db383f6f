"""Trees: params, gradients, caches and optimizer states are nested dicts and tuples of tensors.

A node is a dict, a tuple (also a named tuple) or a list; everything else is a leaf. The path of a leaf joins its keys and
positions with dots: ``"0.weight"``. A ``None`` leaf is an absent tensor: ``leaves``, ``names`` and the sums skip it, ``map``
keeps it. Functions of two trees match dicts by key, in any order, and raise ``ValueError`` that names the first path where the
trees disagree.
"""

from funcnet.flattening import Tree as Tree
from funcnet.tree.arithmetic import add as add
from funcnet.tree.arithmetic import cast as cast
from funcnet.tree.arithmetic import clip as clip
from funcnet.tree.arithmetic import dot as dot
from funcnet.tree.arithmetic import lerp as lerp
from funcnet.tree.arithmetic import mul as mul
from funcnet.tree.arithmetic import norm as norm
from funcnet.tree.arithmetic import scale as scale
from funcnet.tree.arithmetic import sub as sub
from funcnet.tree.arithmetic import to as to
from funcnet.tree.arithmetic import where as where
from funcnet.tree.arithmetic import zeros_like as zeros_like
from funcnet.tree.editing import at as at
from funcnet.tree.editing import combine as combine
from funcnet.tree.editing import partition as partition
from funcnet.tree.editing import ravel as ravel
from funcnet.tree.editing import replace as replace
from funcnet.tree.editing import unravel as unravel
from funcnet.tree.mapping import from_names as from_names
from funcnet.tree.mapping import leaves as leaves
from funcnet.tree.mapping import map as map
from funcnet.tree.mapping import map_with_path as map_with_path
from funcnet.tree.mapping import names as names
from funcnet.tree.mapping import reduce as reduce
from funcnet.tree.mapping import structure as structure
from funcnet.tree.mapping import update as update
from funcnet.tree.measuring import all_finite as all_finite
from funcnet.tree.measuring import allclose as allclose
from funcnet.tree.measuring import describe as describe
from funcnet.tree.measuring import equal as equal
from funcnet.tree.measuring import nbytes as nbytes
from funcnet.tree.measuring import size as size
