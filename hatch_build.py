"""Puts the pretrained models into wheels; an editable install finds them in the checkout."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PretrainedModels(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version, build_data):
        if version == "standard":
            build_data["force_include"]["pretrained"] = "musax/_pretrained"
