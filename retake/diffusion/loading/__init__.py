"""From a folder or a hub repository to a Backbone: components, LoRA and IP-Adapter, offload."""
