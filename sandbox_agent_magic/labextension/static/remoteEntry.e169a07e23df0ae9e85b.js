// Inserts the cells that the kernel side publishes into the open notebook, while the agent still works.
// A module-federation container, written by hand: no build, no dependency, no request. Its name has its hash: after a
// change, `make labextension`.

/** @typedef {import('jupyterlab').Notebook} Notebook */
/** @typedef {import('jupyterlab').NotebookPanel} NotebookPanel */
/** @typedef {import('jupyterlab').SharedCell} SharedCell */
/** @typedef {import('jupyterlab').Message} Message */
/** @typedef {import('jupyterlab').Kernel} Kernel */
/** @typedef {import('jupyterlab').StackItem} StackItem */
/** @typedef {import('jupyterlab').KernelRequest} KernelRequest */

(() => {
  'use strict';

  const NAME = 'sandbox-agent-magic';
  const MIME = 'application/vnd.sandbox-agent.cells.v1+json';
  const CHANNEL = 'sandbox_agent';
  const NOTE = 'sandbox_agent'; // metadata of an inserted cell: where it comes from
  const INSERTED = 'sandbox_agent_inserted'; // metadata of an agent cell: ids that were inserted for it

  /** Ids of cells that this page has taken. @type {Set<string>} */
  const taken = new Set();
  /** Runs that have replaced the run before them. @type {Set<string>} */
  const begun = new Set();
  /** The undo step of each run. @type {Map<string, StackItem>} */
  const steps = new Map();

  /**
   * Do what a request of the kernel says, if its agent cell is in this notebook.
   * @param {NotebookPanel} panel
   * @param {KernelRequest} request
   * @returns {string | null} what was done, for the reader; null where it is none, or for another notebook
   */
  function handle(panel, request) {
    const notebook = panel.content.model?.sharedModel;
    const anchor = notebook?.cells.find(cell => cell.id === request.after);
    if (!notebook || !anchor || request.version !== 1 || !request.cells.every(isOurs)) return null;
    const said = keepingView(panel.content, () =>
      request.undo ? undo(notebook, anchor, request.run) : insert(notebook, anchor, request)
    );
    for (const cell of request.cells) taken.add(cell.id);
    return said;
  }

  /**
   * Insert what is neither in the notebook nor was before; remove what an earlier run left.
   * @param {Notebook} notebook @param {SharedCell} anchor @param {KernelRequest} request
   */
  function insert(notebook, anchor, request) {
    const { run } = request;
    const known = new Set([...notebook.cells.map(cell => cell.id), ...inserted(anchor)]);
    const fresh = request.cells.filter(cell => !known.has(cell.id));
    const old = begun.has(run) ? [] : notebook.cells.filter(cell => belongs(cell, anchor) && note(cell).run !== run);
    begun.add(run);
    /** @type {string[]} */
    let gone = [];
    if (old.length) asOneStep(notebook, run, () => void (gone = remove(notebook, old)));
    if (fresh.length) {
      const index = slot(notebook, anchor, run);
      asOneStep(notebook, run, () => void notebook.insertCells(index, fresh.map(cell => adapt(cell, anchor))));
    }
    // An undo brings back the cells of the run before, which the next run has to find: their ids stay for one run more.
    const before = gone.length ? gone : inserted(anchor);
    const ids = [...before, ...fresh.map(cell => cell.id)];
    if (ids.length) anchor.setMetadata(INSERTED, [...new Set(ids)]);
    return '';
  }

  /** Remove a run's cells. @param {Notebook} notebook @param {SharedCell} anchor @param {string} run */
  function undo(notebook, anchor, run) {
    const cells = notebook.cells.filter(cell => belongs(cell, anchor) && note(cell).run === run);
    /** @type {string[]} */
    let gone = [];
    asOneStep(notebook, `undo ${run}`, () => void (gone = remove(notebook, cells)));
    const kept = cells.length - gone.length;
    const plural = gone.length === 1 ? '' : 's';
    return `Removed ${gone.length} cell${plural} of the last run.${kept ? ` ${kept} that you edited stayed.` : ''}`;
  }

  /**
   * Delete those of `cells` that are as they were inserted; the reader's edits stay, and belong to no run any more.
   * @param {Notebook} notebook
   * @param {SharedCell[]} cells
   * @returns {string[]} ids of what was deleted
   */
  function remove(notebook, cells) {
    const gone = [];
    const { cells: all } = notebook; // it changes only after the transaction, hence from the bottom up
    for (const cell of cells.reverse()) {
      const { agent_cell, ...rest } = note(cell);
      if (rest.source_sha256 === sha256(cell.getSource()).slice(0, 16)) {
        gone.push(cell.id);
        notebook.deleteCell(all.indexOf(cell));
      } else {
        cell.setMetadata(NOTE, { ...rest, detached: true });
      }
    }
    return gone;
  }

  /**
   * Where a run's next cell goes: below its agent cell and what the run has there, above the next agent cell.
   * @param {Notebook} notebook @param {SharedCell} anchor @param {string} run
   */
  function slot(notebook, anchor, run) {
    const { cells } = notebook;
    let at = cells.indexOf(anchor);
    for (let i = at + 1; i < cells.length && !isAgent(cells[i]); i++) {
      if (note(cells[i]).run === run) at = i;
    }
    return at + 1;
  }

  /** One undo takes back all that a run did, whatever the reader did in between.
   * @param {Notebook} notebook @param {string} run @param {() => void} change */
  function asOneStep(notebook, run, change) {
    const manager = notebook.undoManager;
    const top = () => manager.undoStack[manager.undoStack.length - 1];
    const last = top();
    const earlier = steps.get(run);
    // Yjs extends the step on top if that is recent; it must not extend a step of the reader's, nor the reader ours.
    if (earlier && earlier === last) manager.lastChange = Date.now();
    else manager.stopCapturing();
    notebook.transact(change);
    manager.stopCapturing();
    const made = top();
    if (!made || made === last) return;
    const index = earlier ? manager.undoStack.indexOf(earlier) : -1;
    if (earlier && index >= 0 && merge(earlier, made)) manager.undoStack.splice(index, 1);
    steps.set(run, made);
  }

  /**
   * Add an earlier undo step's changes to a later one's.
   * @param {StackItem} from
   * @param {StackItem} to
   * @returns {boolean} false where this version of Yjs keeps them otherwise: there are two steps then
   */
  function merge(from, to) {
    const sets = [from.insertions, to.insertions, from.deletions, to.deletions].map(set => set?.clients);
    if (!sets.every(set => set instanceof Map)) return false;
    const [fromInsertions, toInsertions, fromDeletions, toDeletions] = sets;
    for (const [source, target] of [[fromInsertions, toInsertions], [fromDeletions, toDeletions]]) {
      for (const [client, ranges] of source) {
        target.set(client, [...(target.get(client) ?? []), ...ranges].sort((a, b) => a.clock - b.clock));
      }
    }
    return true;
  }

  /** The reader's active cell and mode stay. @template T
   * @param {import('jupyterlab').NotebookWidget} content @param {() => T} change */
  function keepingView(content, change) {
    const active = content.activeCell?.model.id;
    const { mode } = content;
    const result = change();
    const index = content.widgets.findIndex(widget => widget.model.id === active);
    if (index >= 0 && index !== content.activeCellIndex) {
      content.activeCellIndex = index;
      content.mode = mode;
    }
    return result;
  }

  /** @param {any} cell @returns {boolean} whether it has a published cell's shape */
  function isOurs(cell) {
    return ['code', 'markdown'].includes(cell?.cell_type) && typeof cell.id === 'string' &&
      typeof cell.source === 'string' && typeof cell.metadata?.[NOTE] === 'object';
  }

  /** @param {SharedCell} cell */
  function isAgent(cell) {
    return cell.cell_type === 'code' && /^\s*%%agent(\s|$)/.test(cell.getSource());
  }

  /** @param {SharedCell} cell @param {SharedCell} anchor @returns {boolean} a copy that the reader made does not */
  function belongs(cell, anchor) {
    return note(cell).agent_cell === anchor.id && inserted(anchor).includes(cell.id);
  }

  /** @param {SharedCell} cell @returns {Record<string, any>} */
  function note(cell) {
    return cell.getMetadata(NOTE) ?? {};
  }

  /** @param {SharedCell} anchor @returns {string[]} */
  function inserted(anchor) {
    return anchor.getMetadata(INSERTED) ?? [];
  }

  /**
   * The cell as it goes into the notebook. Its outputs were cleaned by the kernel side, so they are trusted; `trusted` on a
   * markdown cell would leave the notebook unsigned.
   * @param {import('jupyterlab').CellJSON} cell
   * @param {SharedCell} anchor
   */
  function adapt(cell, anchor) {
    const metadata = { ...cell.metadata, [NOTE]: { ...cell.metadata[NOTE], agent_cell: anchor.id } };
    return { ...cell, metadata: cell.cell_type === 'code' ? { ...metadata, trusted: true } : metadata };
  }

  /**
   * A message of a cell that runs: take it out of the cell's output if it is for us and was dealt with.
   * @param {NotebookPanel} panel
   * @param {Message} message
   * @returns {boolean} whether the output stays in the cell
   */
  function stays(panel, message) {
    if (message.header.msg_type !== 'display_data') return true;
    const { data, metadata } = message.content;
    if (!data[MIME]) return !taken.has(metadata?.[NOTE]?.cell);
    const said = attempt(panel, data[MIME]);
    if (said === null) return true;
    message.content.data = { 'text/plain': said };
    return said !== '';
  }

  /**
   * Drop the outputs that carried what has become cells now: a page without this module had left them in the agent cell.
   * @param {NotebookPanel} panel
   * @param {string} id of the agent cell
   */
  function tidy(panel, id) {
    const anchor = panel.content.model?.sharedModel.cells.find(cell => cell.id === id);
    const outputs = anchor?.getOutputs() ?? [];
    const kept = outputs.filter(({ data, metadata }) =>
      data?.[MIME] ? !data[MIME].cells.every((/** @type {any} */ cell) => taken.has(cell.id)) : !taken.has(metadata?.[NOTE]?.cell)
    );
    if (kept.length < outputs.length) anchor?.setOutputs(kept);
  }

  /** @param {NotebookPanel} panel @param {KernelRequest} request */
  function attempt(panel, request) {
    try {
      return handle(panel, request);
    } catch (error) {
      console.error(NAME, error); // the output stays in the cell: nothing is lost
      return null;
    }
  }

  /**
   * Hear what cells that this page runs have to say; other pages' cells are those pages' concern.
   * @param {NotebookPanel} panel
   */
  function listen(panel) {
    panel.sessionContext.iopubMessage.connect((_, message) => {
      const kernel = panel.sessionContext.session?.kernel;
      const { msg_id, session } = message.parent_header;
      if (!kernel || session !== kernel.clientId) return;
      const { content } = message;
      if (message.header.msg_type === 'execute_input') {
        kernel.registerMessageHook(msg_id, reply => stays(panel, reply));
      } else if (message.header.msg_type === 'comm_msg' && content.comm_id === CHANNEL) {
        if (attempt(panel, content.data) !== null) tidy(panel, content.data.after);
      }
    });
  }

  /**
   * Ask a kernel that ran already for the cells that this page has missed.
   * @param {NotebookPanel} panel
   */
  async function attach(panel) {
    await panel.context.ready;
    const kernel = panel.sessionContext.session?.kernel;
    if (kernel?.connectionStatus !== 'connected' || !panel.content.model?.sharedModel.cells.some(isAgent)) return;
    try {
      const { content } = await kernel.requestCommInfo({ target_name: CHANNEL });
      if (content.comms?.[CHANNEL]) channel(kernel)?.send({ op: 'attach' });
    } catch {
      // The kernel has gone, and what it kept with it.
    }
  }

  /** @type {WeakMap<Kernel, import('jupyterlab').Comm>} */
  const channels = new WeakMap();

  /** @param {Kernel} kernel */
  function channel(kernel) {
    let comm = channels.get(kernel);
    if ((!comm || comm.isDisposed) && kernel.handleComms) channels.set(kernel, (comm = kernel.createComm(CHANNEL, CHANNEL)));
    return comm;
  }

  /** SHA-256 of a text's UTF-8 in hex; the browser's own is asynchronous, and missing where the page came by plain http. */
  function sha256(/** @type {string} */ text) {
    /** @type {number[]} */
    const primes = [];
    for (let n = 2; primes.length < 64; n++) if (primes.every(prime => n % prime)) primes.push(n);
    const fraction = (/** @type {number} */ x) => ((x % 1) * 2 ** 32) | 0;
    const constants = primes.map(prime => fraction(prime ** (1 / 3)));
    const hash = primes.slice(0, 8).map(prime => fraction(prime ** (1 / 2)));
    const input = new TextEncoder().encode(text);
    const bytes = new Uint8Array((((input.length + 8) >> 6) + 1) << 6);
    bytes.set(input);
    bytes[input.length] = 0x80;
    const view = new DataView(bytes.buffer);
    view.setUint32(bytes.length - 8, input.length / 2 ** 29);
    view.setUint32(bytes.length - 4, input.length << 3);
    const turn = (/** @type {number} */ x, /** @type {number} */ n) => (x >>> n) | (x << (32 - n));
    const w = new Int32Array(64);
    for (let block = 0; block < bytes.length; block += 64) {
      let [a, b, c, d, e, f, g, h] = hash;
      for (let i = 0; i < 64; i++) {
        if (i < 16) w[i] = view.getInt32(block + 4 * i);
        else {
          const [x, y] = [w[i - 15], w[i - 2]];
          w[i] = w[i - 16] + w[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
        }
        const one = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i];
        const two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
      }
      [a, b, c, d, e, f, g, h].forEach((value, i) => (hash[i] = (hash[i] + value) | 0));
    }
    return hash.map(value => (value >>> 0).toString(16).padStart(8, '0')).join('');
  }

  const plugin = {
    id: `${NAME}:plugin`,
    description: "Inserts an agent's cells into the notebook while it works.",
    autoStart: true,
    /** @param {import('jupyterlab').Application} app */
    activate(app) {
      app.docRegistry.addWidgetExtension('Notebook', {
        /** @param {NotebookPanel} panel */
        createNew(panel) {
          listen(panel);
          panel.sessionContext.connectionStatusChanged.connect(() => void attach(panel));
          void attach(panel);
        }
      });
    }
  };

  const modules = { './extension': { __esModule: true, default: plugin } };
  (window._JUPYTERLAB ??= {})[NAME] = {
    init() {}, // nothing is shared with other modules
    get: (/** @type {string} */ name) =>
      name === './extension' ? Promise.resolve(() => modules[name]) : Promise.reject(new Error(`${NAME} has no ${name}`))
  };
})();
