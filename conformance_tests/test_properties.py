"""Every property on every backend. The properties themselves are part of rigl_core.testing."""

from rigl_core.testing.properties.test_active import *
from rigl_core.testing.properties.test_arrays import *
from rigl_core.testing.properties.test_axes import *
from rigl_core.testing.properties.test_closures import *
from rigl_core.testing.properties.test_deferred import *
from rigl_core.testing.properties.test_errors import *
from rigl_core.testing.properties.test_fresh import *
from rigl_core.testing.properties.test_given_masks import *
from rigl_core.testing.properties.test_gradients import *
from rigl_core.testing.properties.test_large import *
from rigl_core.testing.properties.test_memory import *
from rigl_core.testing.properties.test_methods import *
from rigl_core.testing.properties.test_micro_batches import *
from rigl_core.testing.properties.test_numbers import *
from rigl_core.testing.properties.test_order import *
from rigl_core.testing.properties.test_outside import *
from rigl_core.testing.properties.test_precisions import *
from rigl_core.testing.properties.test_resume import *
from rigl_core.testing.properties.test_slices import *
from rigl_core.testing.properties.test_told import *
from rigl_core.testing.properties.test_topology import *
from rigl_core.testing.properties.test_training import *
from rigl_core.testing.properties.test_trajectory import *
