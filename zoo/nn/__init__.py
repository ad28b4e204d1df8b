"""Networks and losses that papers share; `zoo/nn/<paper>.py` holds the parts of one paper."""
