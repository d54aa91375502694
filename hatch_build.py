"""Put configurations and pretrained models into wheels; an editable install finds the checkout's.

`t5x.gin_utils` searches `t5x/_shipped` for gin files, `musax.pretrained` lists `musax/_pretrained`.
"""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Folder of the checkout -> its place in the wheel.
SHIPPED = {"configs": "t5x/_shipped/configs", "pretrained": "musax/_pretrained"}


class ShippedFolders(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version, build_data):
        if version == "standard":
            build_data["force_include"].update(SHIPPED)
