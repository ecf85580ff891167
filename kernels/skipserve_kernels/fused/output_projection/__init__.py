"""The projection of attention's and the FFN's results back onto the residual stream."""
