"""A real Ray cluster on this machine whose autoscaler makes nodes come and go, for tests of elastic pools.

The head runs Ray's own autoscaler; its nodes are further Ray nodes on this machine, each with one CPU and one
``seat``, made by the provider of nodes that ``ray.cluster_utils.AutoscalingCluster`` uses. (That class itself would
first stop every Ray on the machine, and its default configuration is not part of Ray's wheels.) Every process bears
a mark as in the other cluster, and only those are ever ended. May import the standard library; Ray is started as a
program.
"""

from __future__ import annotations

import json

from pilotwave.testing.two_nodes import TwoNodeCluster


class AutoscalingCluster(TwoNodeCluster):
    """A head without a ``seat`` and up to so many nodes with one.

    Args:
        most: How many nodes there can be besides the head.
        idle_minutes: After how long an idle one is let go.
    """

    def __init__(self, most: int = 3, idle_minutes: float = 0.1) -> None:
        super().__init__()
        self._most = most
        self._idle_minutes = idle_minutes

    def start(self) -> None:
        """Starts the head and waits until it is up.

        Raises:
            AssertionError: It did not come up; its log is in the message.
        """
        self.storage.mkdir(parents=True, exist_ok=True)
        config = self.folder / "autoscaler.json"
        config.write_text(json.dumps(self._config()))
        self.start_head([f"--autoscaling-config={config}"])

    def environment(self, **others: str) -> dict[str, str]:
        """Returns the environment of the other cluster's users, with what the fake nodes want to know."""
        return super().environment(**{"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", **others})

    def _config(self) -> dict[str, object]:
        worker = {"CPU": 1, "seat": 1, "object_store_memory": 80_000_000}
        nothing_to_set_up = {
            "initialization_commands",
            "setup_commands",
            "head_setup_commands",
            "worker_setup_commands",
            "head_start_ray_commands",
            "worker_start_ray_commands",
            "cluster_synced_files",
            "rsync_exclude",
            "rsync_filter",
        }
        return {
            **{key: [] for key in nothing_to_set_up},
            **{key: {} for key in ("auth", "docker", "file_mounts")},
            "file_mounts_sync_continuously": False,
            "upscaling_speed": 1.0,
            "cluster_name": "pilotwave-test",
            "max_workers": self._most,
            "idle_timeout_minutes": self._idle_minutes,
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "gcs_address": self.address,
                "use_node_id_as_ip": True,  # all nodes have this machine's address
            },
            "head_node_type": "head",
            "available_node_types": {
                "head": {"resources": {"CPU": 4}, "node_config": {}, "max_workers": 0},
                "seats": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": self._most},
            },
        }


__all__ = ["AutoscalingCluster"]
