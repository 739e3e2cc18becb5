"""What the fork server of tests/killable.py imports once."""

import launch.ppo  # noqa: F401
import rl_distill.pipeline
import rl_distill.run_setup  # noqa: F401
