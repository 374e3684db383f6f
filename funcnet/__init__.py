"""Functional, stateless neural-network layers on PyTorch tensors: no autograd, every gradient derived by hand.

Names by group, in the order of ``funcnet.__all__``:

    contract               the layer, and the decorator of all values
    randomness             keys, and funcnet.random
    trees and sizes        params as trees, and sizes inferred from an input
    linear maps            Linear and its relatives
    convolutions           over one to three axes: plain, transposed, locally connected, masked, separable
    pooling                over windows, adaptive, global, over segments, and with any layer
    normalization          over batches, layers, groups, instances
    recurrent layers       whole sequences, single cells, and packing
    attention              attention, masks and positions
    embeddings             lookup tables of vectors
    shapes                 reshaping, indexing, padding, resizing, sampling
    noise                  dropout and its relatives
    activations            elementwise functions, softmaxes, gated units
    operands               arithmetic of several tensors, distances, reductions along axes
    combinators            layers that contain layers
    gradient rules and watching  custom backward rules; layers that observe values and gradients
    blocks                 common nets
    walking and rewriting  the layers of a net by path
    seeing                 a net as a table with memory and FLOPs, or as a graph
    losses                 with the reductions mean, sum, none and batch
    optimizers             pure updates of params and state
    gradient transforms    the steps of a chain before its optimizer
    averages of params     over a training run, with refreshed running statistics
    schedules              for any hyperparameter
    initializers           initial values of params
    functions of nets      micro-batches, per-example gradients, outputs of all layers, Jacobians
    metrics                values that add up over batches and ranks
    training               steps, plain, compiled or exported; the loop fit with callbacks, history and report; predictions
    saving                 params and other trees in files with checksums, and checkpoints to resume from
    several workers        funcnet.distributed: one training step in many processes
    other libraries        funcnet.interop: torch.nn, export, ONNX, scikit-learn, TensorBoard
    bases                  subclass them with @frozen to write your own layers, losses and optimizers
    kernels and testing    kernel choices; functions that check the laws
"""

from funcnet import outline as _outline  # noqa: F401 (defines what notebooks show of a net)
from funcnet.combinators import sequential as _sequential  # noqa: F401 (defines f >> g)
from funcnet.lazy_imports import is_lazy
from funcnet.losses import sums as _sums  # noqa: F401 (defines loss + loss)

if not is_lazy(__name__):
    from funcnet import distributed, initializers, interop, kernels, random, testing, tree
    from funcnet.blocks.encoder_decoder import EncoderDecoder
    from funcnet.blocks.perceptron import mlp
    from funcnet.blocks.residual_nets import resnet_block, resnet_bottleneck
    from funcnet.blocks.separable_conv import (
        depthwise_conv1d,
        depthwise_conv2d,
        depthwise_conv3d,
        separable_conv1d,
        separable_conv2d,
        separable_conv3d,
    )
    from funcnet.blocks.transformer_block import TransformerBlock
    from funcnet.blocks.transformer_presets import transformer_decoder_block, transformer_encoder_block
    from funcnet.blocks.transformer_stacks import TransformerStack, transformer, transformer_decoder, transformer_encoder
    from funcnet.combinator import Combinator
    from funcnet.combinators.adapters import add_lora, merge_lora
    from funcnet.combinators.adaptive_pooling import AdaptivePool1d, AdaptivePool2d, AdaptivePool3d
    from funcnet.combinators.branching import branch, parallel, residual
    from funcnet.combinators.constants import keep_constants, serial_with_constants
    from funcnet.combinators.coupling import affine_coupling
    from funcnet.combinators.custom_vjp import with_vjp
    from funcnet.combinators.dag import graph
    from funcnet.combinators.depth import repeat
    from funcnet.combinators.ensembles import ensemble
    from funcnet.combinators.freezing import freeze
    from funcnet.combinators.gradient_rules import clip_gradient, reverse_gradient, scale_gradient, straight_through
    from funcnet.combinators.low_rank import lora
    from funcnet.combinators.mixed_precision import cast
    from funcnet.combinators.modes import by_mode
    from funcnet.combinators.norm_folding import fold_batch_norm
    from funcnet.combinators.orthogonality import orthogonal
    from funcnet.combinators.parametrization import Parametrization, parametrize
    from funcnet.combinators.pooling import Pool1d, Pool2d, Pool3d
    from funcnet.combinators.profiling import profiled
    from funcnet.combinators.rearranging import channels_last, map_over, time_distributed
    from funcnet.combinators.recomputation import remat
    from funcnet.combinators.recurrence import scan
    from funcnet.combinators.reversibility import reversible
    from funcnet.combinators.sequential import serial
    from funcnet.combinators.sharing import shared, tied
    from funcnet.combinators.two_directions import bidirectional
    from funcnet.combinators.unique_rows import uniqued
    from funcnet.combinators.watching import checked, tap
    from funcnet.combinators.weight_norms import spectral_norm, weight_norm
    from funcnet.compilation.compiled import compile
    from funcnet.compilation.scanned import scan_steps
    from funcnet.contract import Layer
    from funcnet.drawing import Drawing, draw
    from funcnet.fitting.callbacks import Callback, Epoch, Step, stop
    from funcnet.fitting.early_stopping import EarlyStopping
    from funcnet.fitting.evaluation import evaluate, predict
    from funcnet.fitting.history import History
    from funcnet.fitting.loop import fit
    from funcnet.fitting.result import Fit
    from funcnet.fitting.run_report import report
    from funcnet.gradients import value_and_grads
    from funcnet.initializers.elementary import Constant, Initializer, Normal, Ones, TruncatedNormal, Uniform, Zeros
    from funcnet.initializers.scaled import (
        KaimingNormal,
        KaimingUniform,
        LecunNormal,
        LecunUniform,
        Orthogonal,
        VarianceScaling,
        XavierNormal,
        XavierUniform,
    )
    from funcnet.initializers.structured import DeltaOrthogonal, Dirac, Eye, Sparse
    from funcnet.interop.exporting import export
    from funcnet.layers.activation.base import Activation
    from funcnet.layers.activation.bounds import Ceil, Clamp, Floor, Round
    from funcnet.layers.activation.elementary import Abs, Cos, Erf, Exp, Gaussian, Monomial, RandomFourier, Sign, Sin, Square
    from funcnet.layers.activation.glu import GEGLU, GLU, ReGLU, SwiGLU
    from funcnet.layers.activation.leaky import LeakyReLU, PReLU, RReLU
    from funcnet.layers.activation.powers import Expm1, Log, Log1p, PowScalar, Reciprocal, Rsqrt, Sqrt
    from funcnet.layers.activation.radial_basis import RBF
    from funcnet.layers.activation.rectifiers import CELU, ELU, SELU, ClippedLinear, ReLU, ReLU6, ReLUK, Threshold
    from funcnet.layers.activation.self_gated import GELU, Dish, Hardswish, Mish, SiLU
    from funcnet.layers.activation.shrinkages import Hardshrink, Softshrink, Tanhshrink
    from funcnet.layers.activation.sigmoids import Hardsigmoid, Hardtanh, LogSigmoid, Sigmoid, Softsign, SparseSigmoid, Tanh
    from funcnet.layers.activation.softmaxes import (
        GumbelSoftmax,
        LogSoftmax,
        LogSumExp,
        MultiSoftmax,
        Softmax,
        Softmax2d,
        Softmin,
    )
    from funcnet.layers.activation.softpluses import Softplus, SparsePlus, Squareplus
    from funcnet.layers.attention.attention_pool import AttentionPool
    from funcnet.layers.attention.dot_product import ScaledDotProductAttention
    from funcnet.layers.attention.mask_layers import FullMask, JointMask, VisibleMask
    from funcnet.layers.attention.masks import causal_mask, combine_masks, local_mask, padding_mask
    from funcnet.layers.attention.multihead import MultiHeadAttention
    from funcnet.layers.attention.positions import LearnedPositions, RotaryEmbedding, SinusoidalPositions
    from funcnet.layers.attention.shifted_windows import ShiftedWindowMask, WindowShift
    from funcnet.layers.attention.varlen import VarlenAttention
    from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
    from funcnet.layers.conv.conv_local import ConvLocal1d, ConvLocal2d, ConvLocal3d
    from funcnet.layers.conv.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
    from funcnet.layers.conv.functional_conv import FunctionalConv, FunctionalConvTranspose
    from funcnet.layers.conv.masked_conv import MaskedConv
    from funcnet.layers.conv.unfold import Fold, Unfold
    from funcnet.layers.custom import elementwise, layer, shape_dependent
    from funcnet.layers.embedding.embedding import Embedding, HashEmbed
    from funcnet.layers.embedding.embedding_bag import EmbeddingBag
    from funcnet.layers.embedding.functional_embedding import FunctionalEmbedding
    from funcnet.layers.embedding.sinusoidal import SinusoidalEmbedding
    from funcnet.layers.linear.adaptive_softmax import AdaptiveLogSoftmaxWithLoss
    from funcnet.layers.linear.bilinear import Bilinear
    from funcnet.layers.linear.deferred_linear import DeferredLinear
    from funcnet.layers.linear.einsum import Einsum
    from funcnet.layers.linear.elementwise_affine import Bias, Scale
    from funcnet.layers.linear.functional_linear import FunctionalLinear
    from funcnet.layers.linear.linear import Linear
    from funcnet.layers.linear.linear_general import LinearGeneral
    from funcnet.layers.linear.maxout import Maxout
    from funcnet.layers.linear.rescaling import Rescale
    from funcnet.layers.noise.alpha_dropout import AlphaDropout, FeatureAlphaDropout
    from funcnet.layers.noise.drop_connect import DropConnect
    from funcnet.layers.noise.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d, DropPath
    from funcnet.layers.noise.gaussian_noise import GaussianNoise
    from funcnet.layers.noise.gaussian_sample import GaussianSample
    from funcnet.layers.noise.random_tensor import RandomTensor
    from funcnet.layers.norm.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
    from funcnet.layers.norm.functional_norms import ChannelAffine, FunctionalBatchNorm, GroupStandardize
    from funcnet.layers.norm.group_norm import GroupNorm
    from funcnet.layers.norm.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
    from funcnet.layers.norm.layer_norm import LayerNorm, RMSNorm
    from funcnet.layers.norm.local_response_norm import CrossMapLRN2d, LocalResponseNorm
    from funcnet.layers.norm.running_batch_norm import RunningBatchNorm1d, RunningBatchNorm2d, RunningBatchNorm3d
    from funcnet.layers.norm.running_instance_norm import (
        RunningInstanceNorm1d,
        RunningInstanceNorm2d,
        RunningInstanceNorm3d,
    )
    from funcnet.layers.norm.standardize import Normalize, Standardize
    from funcnet.layers.operands.arithmetic import Add, Div, Mul, Pow, Sub
    from funcnet.layers.operands.choices import Maximum, Minimum, TypeAs, Where
    from funcnet.layers.operands.distances import CauchySimilarity, CosineSimilarity, PairwiseDistance
    from funcnet.layers.operands.einsum import EinsumOperands
    from funcnet.layers.operands.extreme_reductions import Max, Min
    from funcnet.layers.operands.matmul import MatMul
    from funcnet.layers.operands.norms import VectorNorm
    from funcnet.layers.operands.picking import Concat, Pick, Stack, Unbind
    from funcnet.layers.operands.ranking import CumSum, GatherElements, MaxWithIndices, MinWithIndices, TopK
    from funcnet.layers.operands.reductions import Mean, Prod, Sum
    from funcnet.layers.operands.spread_reductions import Std, Var
    from funcnet.layers.pooling.adaptive import (
        AdaptiveAvgPool1d,
        AdaptiveAvgPool2d,
        AdaptiveAvgPool3d,
        AdaptiveMaxPool1d,
        AdaptiveMaxPool2d,
        AdaptiveMaxPool3d,
    )
    from funcnet.layers.pooling.avg_pool import AvgPool1d, AvgPool2d, AvgPool3d, SumPool1d, SumPool2d, SumPool3d
    from funcnet.layers.pooling.fractional import FractionalMaxPool2d, FractionalMaxPool3d
    from funcnet.layers.pooling.global_pool import GlobalAvgPool, GlobalMaxPool, GlobalSumPool
    from funcnet.layers.pooling.lp_pool import LPPool1d, LPPool2d, LPPool3d
    from funcnet.layers.pooling.max_pool import MaxPool1d, MaxPool2d, MaxPool3d
    from funcnet.layers.pooling.min_pool import MinPool1d, MinPool2d, MinPool3d
    from funcnet.layers.pooling.segments import SegmentPool
    from funcnet.layers.pooling.unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d
    from funcnet.layers.recurrent.cells import GRUCell, LSTMCell, RNNCell
    from funcnet.layers.recurrent.nets import GRU, LSTM, RNN
    from funcnet.layers.recurrent.packing import pack_padded, pad_packed, pad_sequence, unpad_sequence
    from funcnet.layers.shape.axes import Permute, Squeeze, Transpose, Unsqueeze
    from funcnet.layers.shape.boundary_padding import (
        ReflectionPad1d,
        ReflectionPad2d,
        ReflectionPad3d,
        ReplicationPad1d,
        ReplicationPad2d,
        ReplicationPad3d,
    )
    from funcnet.layers.shape.casting import Cast
    from funcnet.layers.shape.circular_padding import CircularPad1d, CircularPad2d, CircularPad3d
    from funcnet.layers.shape.constant_padding import ConstantPad1d, ConstantPad2d, ConstantPad3d, ZeroPad1d, ZeroPad2d, ZeroPad3d
    from funcnet.layers.shape.expand_window import ExpandWindow
    from funcnet.layers.shape.grid_sampling import AffineGrid, GridSample
    from funcnet.layers.shape.indexing import Chunk, Index, OneHot, Split
    from funcnet.layers.shape.moving import Flip, MoveDim, RepeatInterleave, Roll, SlidingWindow
    from funcnet.layers.shape.pattern_reduction import Reduce, Repeat
    from funcnet.layers.shape.rearrangement import rearrange
    from funcnet.layers.shape.reshaping import Flatten, Identity, Reshape, Unflatten
    from funcnet.layers.shape.resizing import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d
    from funcnet.layers.shape.selecting import Gather, Select
    from funcnet.layers.shape.shuffling import ChannelShuffle, PixelShuffle, PixelUnshuffle
    from funcnet.layers.shape.sized import ConstantPad, Expand, RescaleBySize, View
    from funcnet.layers.shape.sized_indexing import GetItem, Narrow
    from funcnet.layers.shape.sized_resizing import AdaptiveAvgPoolTo, ResizeTo
    from funcnet.layers.shape.sized_tiling import Tile
    from funcnet.layers.shape.sources import ConstantTensor, Parameter
    from funcnet.layers.shape.templates import InputOnes, InputShape, InputSize, InputTensor, SizeArithmetic
    from funcnet.layers.shape.triangles import Tril, Triu
    from funcnet.layers.shape.without_gradient import NoGradient
    from funcnet.losses.binary import BCE, BCEWithLogits
    from funcnet.losses.binary_margins import Hinge, MarginRanking
    from funcnet.losses.class_margins import MulticlassHinge, MultiLabelMargin, MultiMargin
    from funcnet.losses.classification import NLL, CrossEntropy
    from funcnet.losses.contrastive import CosineEmbedding, InfoNCE, NTXent
    from funcnet.losses.cosine_distance import CosineDistance
    from funcnet.losses.ctc import CTC
    from funcnet.losses.dice import Dice
    from funcnet.losses.divergences import GeneralizedKL, KLDiv
    from funcnet.losses.elementwise_loss import ElementwiseLoss
    from funcnet.losses.focal import Focal, MulticlassFocal
    from funcnet.losses.gaussian_kl import GaussianKL
    from funcnet.losses.likelihoods import GaussianNLL, PoissonNLL
    from funcnet.losses.linear_cross_entropy import LinearCrossEntropy
    from funcnet.losses.loss import Loss
    from funcnet.losses.named import losses_of
    from funcnet.losses.poly import PolyCrossEntropy
    from funcnet.losses.regression import L1, L2, MSE
    from funcnet.losses.robust import Huber, LogCosh, SmoothL1
    from funcnet.losses.sample_weights import weighted
    from funcnet.losses.soft_margin import HingeEmbedding, MultiLabelSoftMargin, SoftMargin
    from funcnet.losses.triplets import TripletMargin, TripletMarginWithDistance
    from funcnet.metrics.accuracies import Accuracy, accuracy
    from funcnet.metrics.base import Metric
    from funcnet.metrics.calibration import CalibrationError
    from funcnet.metrics.confusion import BalancedAccuracy, CohenKappa, ConfusionMatrix, MatthewsCorrelation
    from funcnet.metrics.label_scores import F1, FBeta, IoU, Precision, Recall
    from funcnet.metrics.means import Average, Perplexity
    from funcnet.metrics.rankings import AUROC, AveragePrecision
    from funcnet.metrics.regression import R2, ExplainedVariance, MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError
    from funcnet.metrics.several import metrics_of
    from funcnet.optim.accumulation import MultiSteps
    from funcnet.optim.adabelief import AdaBelief
    from funcnet.optim.adadelta import Adadelta
    from funcnet.optim.adafactor import Adafactor
    from funcnet.optim.adagrad import Adagrad
    from funcnet.optim.adam import Adam, AdamW
    from funcnet.optim.adamax import Adamax
    from funcnet.optim.adan import Adan
    from funcnet.optim.ademamix import AdEMAMix
    from funcnet.optim.adopt import ADOPT
    from funcnet.optim.asgd import ASGD
    from funcnet.optim.averaged import Averaged
    from funcnet.optim.averages import EMA, SWA
    from funcnet.optim.base import GradientTransform, Optimizer
    from funcnet.optim.chaining import chain, donate
    from funcnet.optim.clipping import ClipByGlobalNorm, ClipByValue
    from funcnet.optim.groups import by_path, freeze_params, is_matrix
    from funcnet.optim.lamb import LAMB
    from funcnet.optim.lars import LARS
    from funcnet.optim.lbfgs import LBFGS
    from funcnet.optim.lion import Lion
    from funcnet.optim.lookahead import Lookahead
    from funcnet.optim.masks import decay_mask
    from funcnet.optim.master_weights import MasterWeights
    from funcnet.optim.moments import MomentOptimizer, MomentTransform
    from funcnet.optim.muon import Muon
    from funcnet.optim.nadam import NAdam
    from funcnet.optim.novograd import NovoGrad
    from funcnet.optim.prodigy import Prodigy
    from funcnet.optim.radam import RAdam
    from funcnet.optim.rmsprop import RMSprop
    from funcnet.optim.rprop import Rprop
    from funcnet.optim.schedule_free import ScheduleFree
    from funcnet.optim.schedules.base import FormulaSchedule, LambdaSchedule, ProductSchedule, Schedule, SumSchedule
    from funcnet.optim.schedules.cycles import (
        CosineAnnealingSchedule,
        CosineRestartsSchedule,
        CyclicSchedule,
        OneCycleMomentumSchedule,
        OneCycleSchedule,
    )
    from funcnet.optim.schedules.decay import (
        ExponentialSchedule,
        InverseSquareRootSchedule,
        InverseTimeSchedule,
        MultiStepSchedule,
        StepSchedule,
    )
    from funcnet.optim.schedules.interpolation import ConstantSchedule, CosineSchedule, LinearSchedule, PolynomialSchedule
    from funcnet.optim.schedules.piecewise import JoinedSchedule, PiecewiseConstantSchedule, PiecewiseInterpolateSchedule
    from funcnet.optim.schedules.plateau import ReduceOnPlateau
    from funcnet.optim.schedules.warmup import (
        SlantedTriangularSchedule,
        WarmupConstantSchedule,
        WarmupCosineSchedule,
        WarmupExponentialSchedule,
        WarmupLinearSchedule,
        WarmupSchedule,
        WarmupStableDecaySchedule,
    )
    from funcnet.optim.sgd import SGD
    from funcnet.optim.sharpness import SAM
    from funcnet.optim.sign_sgd import SignSGD
    from funcnet.optim.skipping import SkipNonFinite
    from funcnet.optim.sm3 import SM3
    from funcnet.optim.soap import SOAP
    from funcnet.optim.transforms.adaptive import ScaleByAdam, ScaleByAMSGrad, ScaleByBelief, ScaleByLion, ScaleByYogi
    from funcnet.optim.transforms.block_clipping import AdaptiveClip, ClipByBlockRMS, ClipByNorm
    from funcnet.optim.transforms.decay import AddDecayedWeights
    from funcnet.optim.transforms.factored import ScaleByFactoredRMS
    from funcnet.optim.transforms.loss_scale import LossScale
    from funcnet.optim.transforms.noise import AddNoise, AddPrivacyNoise
    from funcnet.optim.transforms.norms import (
        NormalizeByUpdateNorm,
        ScaleByParamBlockNorm,
        ScaleByParamBlockRMS,
        ScaleByTrustRatio,
    )
    from funcnet.optim.transforms.observing import Monitor
    from funcnet.optim.transforms.scaling import ScaleBy, ScaleByLearningRate, ScaleBySchedule, ScaleBySign, Trace
    from funcnet.optim.transforms.shaping import Centralize, KeepParamsNonnegative, ZeroNaNs
    from funcnet.optim.transforms.squares import ScaleByRMS, ScaleByRSS, ScaleByStddev
    from funcnet.optim.yogi import Yogi
    from funcnet.random.keys import fold_in, key, split
    from funcnet.range_test import RateRange, lr_range
    from funcnet.saving.background import save_in_background
    from funcnet.saving.checkpoints import Checkpoints
    from funcnet.saving.files import load, load_metadata, save
    from funcnet.sizes import infer_sizes, output_shape
    from funcnet.summaries import Summary, summary
    from funcnet.train import train_step
    from funcnet.transforms.accumulation import accumulate
    from funcnet.transforms.clipped import clipped_grads
    from funcnet.transforms.per_example import per_example_grads, per_example_norms
    from funcnet.transforms.refreshing import refresh_stats
    from funcnet.transforms.seeing import intermediates, jacobian
    from funcnet.transforms.unit_variance import lsuv
    from funcnet.value import Value, frozen
    from funcnet.walking import at, map_layers, replace, walk
    from funcnet.wrapper import Rearranging, Wrapper

__version__ = "0.2.0"

# fmt: off
__all__ = [
    # contract
    "Layer", "Value", "frozen",
    # randomness
    "key", "split", "fold_in", "random",
    # trees and sizes
    "tree", "infer_sizes", "output_shape", "shape_dependent",
    # linear maps
    "Linear", "DeferredLinear", "LinearGeneral", "Einsum", "Bilinear", "Scale", "Bias", "Rescale", "Maxout", "FunctionalLinear",
    # convolutions
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "ConvLocal1d", "ConvLocal2d",
    "ConvLocal3d", "MaskedConv", "Unfold", "Fold", "depthwise_conv1d", "depthwise_conv2d", "depthwise_conv3d",
    "separable_conv1d", "separable_conv2d", "separable_conv3d", "FunctionalConv", "FunctionalConvTranspose",
    # pooling
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d", "MinPool1d", "MinPool2d", "MinPool3d",
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "SumPool1d", "SumPool2d", "SumPool3d", "LPPool1d", "LPPool2d", "LPPool3d",
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d",
    "GlobalAvgPool", "GlobalMaxPool", "GlobalSumPool", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "SegmentPool", "Pool1d",
    "Pool2d", "Pool3d", "AdaptivePool1d", "AdaptivePool2d", "AdaptivePool3d",
    # normalization
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "RunningBatchNorm1d", "RunningBatchNorm2d", "RunningBatchNorm3d", "LayerNorm",
    "RMSNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "RunningInstanceNorm1d",
    "RunningInstanceNorm2d", "RunningInstanceNorm3d", "LocalResponseNorm", "CrossMapLRN2d", "Normalize", "Standardize",
    "GroupStandardize", "ChannelAffine", "FunctionalBatchNorm",
    # recurrent layers
    "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "pack_padded", "pad_packed", "pad_sequence", "unpad_sequence",
    # attention
    "ScaledDotProductAttention", "VarlenAttention", "AttentionPool", "MultiHeadAttention", "causal_mask", "local_mask",
    "padding_mask", "combine_masks", "VisibleMask", "JointMask", "FullMask", "RotaryEmbedding", "SinusoidalPositions",
    "LearnedPositions", "WindowShift", "ShiftedWindowMask",
    # embeddings
    "Embedding", "EmbeddingBag", "HashEmbed", "SinusoidalEmbedding", "FunctionalEmbedding",
    # shapes
    "Identity", "Flatten", "Unflatten", "Reshape", "Permute", "Transpose", "Squeeze", "Unsqueeze", "Index", "Split", "Chunk",
    "Select", "Gather", "Triu", "Tril",
    "OneHot", "Cast", "rearrange", "Reduce", "Repeat", "ExpandWindow", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
    "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d",
    "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "CircularPad1d", "CircularPad2d", "CircularPad3d", "Upsample",
    "UpsamplingNearest2d", "UpsamplingBilinear2d", "PixelShuffle", "PixelUnshuffle", "ChannelShuffle", "GridSample",
    "AffineGrid", "View", "Expand", "ConstantPad", "RescaleBySize", "GetItem", "Narrow", "ResizeTo", "AdaptiveAvgPoolTo", "Tile",
    "MoveDim", "Unbind", "Roll", "Flip", "RepeatInterleave", "SlidingWindow", "NoGradient", "Parameter", "ConstantTensor",
    "InputSize", "InputShape", "InputOnes", "InputTensor", "SizeArithmetic",
    # noise
    "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", "DropPath", "DropConnect",
    "GaussianNoise", "GaussianSample", "GumbelSoftmax", "RandomTensor",
    # activations
    "ReLU", "ReLU6", "ReLUK", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Dish", "Hardswish",
    "GLU", "GEGLU", "ReGLU", "SwiGLU", "Sigmoid", "LogSigmoid", "Hardsigmoid", "SparseSigmoid", "Tanh", "Hardtanh", "Tanhshrink",
    "Softsign", "Softplus", "Squareplus", "SparsePlus", "Hardshrink", "Softshrink", "Threshold", "ClippedLinear", "Softmax",
    "LogSoftmax", "Softmin", "Softmax2d", "MultiSoftmax", "LogSumExp", "Sin", "Cos", "Exp", "Erf", "Abs", "Sign", "Square",
    "Monomial", "PowScalar", "Sqrt", "Rsqrt", "Reciprocal", "Log", "Log1p", "Expm1", "Clamp", "Floor", "Ceil", "Round",
    "Gaussian", "RandomFourier", "RBF",
    # operands
    "Add", "Sub", "Mul", "Div", "MatMul", "Pow", "Concat", "Stack", "Pick", "Where", "Maximum", "Minimum", "TypeAs", "CumSum",
    "TopK", "MaxWithIndices", "MinWithIndices", "GatherElements", "EinsumOperands", "VectorNorm", "CosineSimilarity",
    "PairwiseDistance", "CauchySimilarity", "Mean", "Sum", "Prod", "Max", "Min", "Var", "Std",
    # combinators
    "serial", "parallel", "branch", "residual", "graph", "ensemble", "shared", "tied", "lora", "parametrize", "weight_norm",
    "spectral_norm", "orthogonal", "channels_last", "uniqued", "scan", "bidirectional", "map_over", "time_distributed", "repeat",
    "remat", "freeze", "by_mode", "reversible", "affine_coupling", "cast", "keep_constants", "serial_with_constants",
    # gradient rules and watching
    "scale_gradient", "reverse_gradient", "clip_gradient", "straight_through", "with_vjp", "checked", "tap", "profiled",
    # blocks
    "mlp", "transformer_encoder_block", "transformer_decoder_block", "transformer_encoder", "transformer_decoder", "transformer",
    "TransformerBlock", "TransformerStack", "EncoderDecoder", "resnet_block", "resnet_bottleneck",
    # walking and rewriting
    "walk", "at", "replace", "map_layers", "fold_batch_norm", "add_lora", "merge_lora",
    # seeing
    "summary", "Summary", "draw", "Drawing",
    # losses
    "MSE", "L1", "L2", "Huber", "SmoothL1", "LogCosh", "CosineDistance", "BCE", "BCEWithLogits", "CrossEntropy", "NLL",
    "PolyCrossEntropy", "LinearCrossEntropy", "AdaptiveLogSoftmaxWithLoss", "CTC", "Focal", "MulticlassFocal", "Dice", "KLDiv",
    "GeneralizedKL", "GaussianKL", "GaussianNLL", "PoissonNLL", "Hinge", "MulticlassHinge", "MultiMargin", "MultiLabelMargin",
    "SoftMargin", "MultiLabelSoftMargin", "HingeEmbedding", "MarginRanking", "CosineEmbedding", "TripletMargin",
    "TripletMarginWithDistance", "InfoNCE", "NTXent", "weighted", "losses_of",
    # optimizers
    "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD", "Adafactor", "Muon",
    "LBFGS", "Lion", "LAMB", "LARS", "AdaBelief", "Yogi", "Adan", "ADOPT", "AdEMAMix", "NovoGrad", "SM3", "SignSGD", "Prodigy",
    "SOAP", "ScheduleFree", "Lookahead", "Averaged", "SAM", "MultiSteps", "SkipNonFinite", "MasterWeights", "by_path",
    "freeze_params", "is_matrix", "chain", "donate",
    # gradient transforms
    "ScaleBy", "ScaleBySchedule", "ScaleByLearningRate", "ScaleBySign", "Trace", "ScaleByAdam", "ScaleByAMSGrad",
    "ScaleByBelief", "ScaleByYogi", "ScaleByLion", "ScaleByRMS", "ScaleByStddev", "ScaleByRSS", "ScaleByFactoredRMS",
    "ScaleByTrustRatio", "ScaleByParamBlockNorm", "ScaleByParamBlockRMS", "NormalizeByUpdateNorm", "ClipByGlobalNorm",
    "ClipByValue", "ClipByNorm", "ClipByBlockRMS", "AdaptiveClip", "AddDecayedWeights", "decay_mask", "Centralize", "ZeroNaNs",
    "KeepParamsNonnegative", "AddNoise", "AddPrivacyNoise", "Monitor", "LossScale",
    # averages of params
    "EMA", "SWA", "refresh_stats",
    # schedules
    "ConstantSchedule", "LinearSchedule", "PolynomialSchedule", "ExponentialSchedule", "InverseTimeSchedule",
    "InverseSquareRootSchedule", "CosineSchedule", "CosineAnnealingSchedule", "CosineRestartsSchedule", "CyclicSchedule",
    "OneCycleSchedule", "OneCycleMomentumSchedule", "WarmupSchedule", "WarmupConstantSchedule", "WarmupLinearSchedule",
    "StepSchedule", "MultiStepSchedule", "PiecewiseConstantSchedule", "PiecewiseInterpolateSchedule", "JoinedSchedule",
    "ProductSchedule", "SumSchedule", "LambdaSchedule", "ReduceOnPlateau", "WarmupCosineSchedule", "WarmupExponentialSchedule",
    "WarmupStableDecaySchedule", "SlantedTriangularSchedule",
    # initializers
    "Zeros", "Ones", "Constant", "Uniform", "Normal", "TruncatedNormal", "XavierNormal", "XavierUniform", "KaimingNormal",
    "KaimingUniform", "LecunNormal", "LecunUniform", "VarianceScaling", "Orthogonal", "DeltaOrthogonal", "Eye", "Dirac",
    "Sparse", "initializers",
    # functions of nets
    "accumulate", "per_example_grads", "per_example_norms", "clipped_grads", "intermediates", "jacobian", "lsuv",
    # metrics
    "accuracy", "Accuracy", "BalancedAccuracy", "ConfusionMatrix", "Precision", "Recall", "F1", "FBeta", "IoU", "CohenKappa",
    "MatthewsCorrelation", "AUROC", "AveragePrecision", "CalibrationError", "MeanAbsoluteError", "MeanSquaredError",
    "RootMeanSquaredError", "R2", "ExplainedVariance", "Perplexity", "Average", "metrics_of",
    # training
    "value_and_grads", "train_step", "compile", "scan_steps", "export", "lr_range", "RateRange",
    "fit", "Fit", "History", "report", "evaluate", "predict", "Callback", "Epoch", "Step", "EarlyStopping", "stop",
    # saving
    "save", "load", "load_metadata", "save_in_background", "Checkpoints",
    # several workers
    "distributed",
    # other libraries
    "interop",
    # bases
    "Activation", "Combinator", "Wrapper", "Rearranging", "Parametrization", "Loss", "ElementwiseLoss", "Optimizer",
    "MomentOptimizer", "GradientTransform", "MomentTransform", "Schedule", "FormulaSchedule", "Initializer", "Metric", "layer",
    "elementwise",
    # kernels and testing
    "kernels", "testing",
]
# fmt: on
