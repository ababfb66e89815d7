import os
import time

import numpy as np
import triton_python_backend_utils as pb


def tensor(name, text):
    return pb.Tensor(name, np.array([text], dtype=np.object_))


class TritonPythonModel:
    """Repeats the prompt word by word. Behind "wait" it waits until its caller has
    gone, which it writes into the file that GONE names; "fail" fails."""

    def execute(self, requests):
        for r in requests:
            self.write(r, pb.get_input_tensor_by_name(r, "text_input").as_numpy()[0].decode())

    def write(self, request, prompt):
        sender = request.get_response_sender()
        for word in prompt.split():
            if word == "wait":
                end = time.monotonic() + 20
                while not sender.is_cancelled() and time.monotonic() < end:
                    time.sleep(0.01)
                with open(os.environ["GONE"], "w") as f:
                    f.write("cancelled" if sender.is_cancelled() else "late")
                break
            if word == "fail":
                sender.send(pb.InferenceResponse(error=pb.TritonError("CUDA error")), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                return
            sender.send(pb.InferenceResponse([tensor("text_output", word + " "), tensor("finish_reason", "None")]))
        sender.send(pb.InferenceResponse([tensor("text_output", ""), tensor("finish_reason", "length")]))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
