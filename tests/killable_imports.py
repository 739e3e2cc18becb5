"""What the fork server of tests/killable.py imports once."""

import launch.ppo  # noqa: F401
import rl_distill.pipeline
import rl_distill.worlds  # noqa: F401
