"""The sentences of the page. Names in braces are filled in."""

INTRODUCTION = """\
`nox -s claims` trains the networks of this page on two CPU cores, and writes it. Trainings are short ({images:,}
steps on images, {text:,} on text), so the page tells of small networks and of little time, and nothing of ResNet-50."""

CLAIMS = """\
Gains are in points of test accuracy, in bits for each character, or in training loss (section 4.4). The error is twice
the standard error of the difference between the means of all seeds. Where the gain is smaller than its error, the
difference is not clear."""

IMAGES = """\
A convnet of three strided convolutions (16, 32, 64 channels) with batch norm, and a linear layer. Mean ± standard
deviation over the seeds. *Cost*: operations of the whole training, by [our own count](costs.md); a dense training of
the usual length is 1. *Empty*: share of outputs without a connection. *Largest fan-in*: the share of a layer's
connections that one output holds. ×3: three times as many steps. *RigL by output* grows by gradients that are
compared within each output (`grow=GRADIENT_BY_OUTPUT`), *RigL, a floor* has `floor=1`."""

TEXT = """\
One GRU layer of 128 units predicts the next character. Mean ± standard deviation; fewer bits are better. The
embedding stays dense. The methods are fewer than on images, to keep the run short."""

LANDSCAPE = """\
The same convnet, at {sparsity}. A Static and a pruned network start from the same weights. A further training, of the
same length, starts from the Static solution, and either keeps its topology or moves it. Mean ± standard deviation;
the loss is that of training batches."""

PATHS = """\
The paper finds that Static training ends in a bad minimum, which RigL can leave, and that the straight path to a
pruned solution has a high barrier. It finds no low path among sparse networks, and a low one among dense ones. Here a
barrier is the highest loss on the path, above that of its worse end; 0 means that the path rises nowhere. Sparse
curves stay in the union of both topologies. [`paths.py`](../examples/claims/paths.py) draws such paths between two
trainings of yours."""

HYPER_PARAMETERS = """\
Each method had six trainings for each task and sparsity, on a validation part that it did not train on: six learning
rates; or three, with two of α, for methods that move connections. `nox -s claims -- --tune` repeats that. ΔT =
{every}, T_end at 75 % of the training, ERK. Images: SGD with Nesterov momentum 0.9, batch 64, L2 0.0005. Text: Adam,
batch 32 of 64 characters. The learning rate warms up over 5 % of the training, then falls along a cosine. ×3 takes
the settings of the usual length. The tables have the highest learning rate, and α.
{edge} of {all} settings have the highest learning rate that was tried: a still higher one may be better."""

PILED_UP = """\
Gradient magnitudes of different units are not comparable, so growth can pile up on few of them, and leave others
without a connection. Empty outputs: {empty}."""

SHORT = """\
These trainings have {updates} updates, 50 steps apart. The paper's have hundreds, 100 steps apart: grown weights have
time to become large before the next update drops the smallest."""
