"""The contract of a backbone: its checks in the order in which they are run."""

from __future__ import annotations

from tlkit.testing.backbone_blocks import (
    blocks_cover_every_parameter_once,
    blocks_go_from_input_to_output,
    can_be_partitioned_at_every_block,
    frozen_parameters_do_not_change,
    gradients_reach_every_block,
)
from tlkit.testing.backbone_copies import a_model_folder_restores_it, can_be_copied_and_moved
from tlkit.testing.backbone_features import (
    evaluation_changes_no_state,
    feature_shapes_agree,
    features_repeat,
    images_are_independent,
    its_classifier_takes_its_features,
    preprocessing_is_complete,
    works_in_channels_last,
    works_under_autocast,
)

CHECKS = (
    preprocessing_is_complete,
    feature_shapes_agree,
    its_classifier_takes_its_features,
    features_repeat,
    evaluation_changes_no_state,
    images_are_independent,
    blocks_cover_every_parameter_once,
    blocks_go_from_input_to_output,
    can_be_partitioned_at_every_block,
    frozen_parameters_do_not_change,
    gradients_reach_every_block,
    a_model_folder_restores_it,
    works_under_autocast,
    works_in_channels_last,
    can_be_copied_and_moved,
)
