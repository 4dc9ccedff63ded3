"""The gRPC face: servicers, validation, errors as google.rpc details, and what happens around every
call."""
