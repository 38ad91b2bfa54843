// The dialog that asks for the API key.

import { setKey } from "./api.js";

const $ = (id) => document.getElementById(id);

/**
 * Ask until `attempt` succeeds or the user gives up.
 *
 * @param attempt async; throws a Problem with status 401 if the key is wrong
 * @returns what `attempt` gave, or null
 */
export function askForKey(attempt, why = "") {
  const dialog = $("key-dialog");
  $("key-error").textContent = why;
  $("key").value = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    $("key-form").onsubmit = async (event) => {
      event.preventDefault();
      setKey($("key").value.trim(), $("keep-key").checked);
      try {
        const result = await attempt();
        dialog.onclose = null;
        dialog.close();
        resolve(result);
      } catch (error) {
        if (error.status === 401) refuse();
        else { dialog.onclose = null; dialog.close(); reject(error); }
      }
    };
    dialog.querySelector("[data-act=close-key]").onclick = () => dialog.close();
    dialog.onclose = () => resolve(null);
  });
}

function refuse() {
  setKey("", false);
  $("key-error").textContent = "The server does not accept this key.";
  $("key").select();
}
