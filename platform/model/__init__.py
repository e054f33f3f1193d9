"""Our extension of botocore service models, as data."""
