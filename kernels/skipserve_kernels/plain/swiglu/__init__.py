"""The gated activation of the FFN."""
