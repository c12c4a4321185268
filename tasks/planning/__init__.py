"""From a manifest to a plan: what things are called, which lie in one pack or shard, and what they cost."""
