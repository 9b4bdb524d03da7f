// Inserts the cells that the kernel side publishes into the open notebook, while the agent still works.
// A module-federation container without a build. After a change: `make labextension`, for the hash in its name.

/** @import { Application, CellJSON, Comm, Kernel, KernelRequest, Message, Notebook } from 'jupyterlab' */
/** @import { NotebookPanel, NotebookWidget, SharedCell, StackItem } from 'jupyterlab' */

(() => {
  'use strict';

  const NAME = 'sandbox-agent-magic';
  const MIME = 'application/vnd.sandbox-agent.cells.v1+json';
  const CHANNEL = 'sandbox_agent';
  const NOTE = 'sandbox_agent'; // an inserted cell's metadata: where it comes from
  const INSERTED = 'sandbox_agent_inserted'; // an agent cell's metadata: ids of its cells
  const AGENT = /^\s*%%agent(\s|$)/;

  /** Ids of cells that this page has taken. @type {Set<string>} */
  const taken = new Set();
  /** Runs that have replaced the run before them. @type {Set<string>} */
  const begun = new Set();
  /** The undo step of each run. @type {Map<string, StackItem>} */
  const steps = new Map();

  /**
   * Do what a request says. @param {NotebookPanel} panel @param {KernelRequest} request
   * @returns {string | null} what to tell the reader; null where it is no request, or for another notebook
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
    const gone = old.length ? asOneStep(notebook, run, () => remove(notebook, old)) : [];
    if (fresh.length) {
      const index = slot(notebook, anchor, run);
      asOneStep(notebook, run, () => notebook.insertCells(index, fresh.map(cell => adapt(cell, anchor))));
    }
    // An undo brings the run before back, and the next run has to find it: its ids stay that long.
    const before = gone.length ? gone : inserted(anchor);
    const ids = [...before, ...fresh.map(cell => cell.id)];
    if (ids.length) anchor.setMetadata(INSERTED, [...new Set(ids)]);
    return '';
  }

  /** Remove a run's cells. @param {Notebook} notebook @param {SharedCell} anchor @param {string} run */
  function undo(notebook, anchor, run) {
    const cells = notebook.cells.filter(cell => belongs(cell, anchor) && note(cell).run === run);
    const gone = asOneStep(notebook, `undo ${run}`, () => remove(notebook, cells));
    const kept = cells.length - gone.length;
    const count = `${gone.length} cell${gone.length === 1 ? '' : 's'}`;
    return `Removed ${count} of the last run.${kept ? ` ${kept} that you edited stayed.` : ''}`;
  }

  /**
   * Delete those of `cells` that are as they were inserted; what the reader edited stays, and is of no run any more.
   * @param {Notebook} notebook @param {SharedCell[]} cells @returns ids of what was deleted
   */
  function remove(notebook, cells) {
    /** @type {string[]} */
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

  /** One undo takes back all that a run did, whatever the reader did in between. @template T
   * @param {Notebook} notebook @param {string} run @param {() => T} change */
  function asOneStep(notebook, run, change) {
    const manager = notebook.undoManager;
    const top = () => manager.undoStack[manager.undoStack.length - 1];
    const last = top();
    const earlier = steps.get(run);
    // Yjs extends the step on top if it is recent: that must be ours, not the reader's.
    if (earlier && earlier === last) manager.lastChange = Date.now();
    else manager.stopCapturing();
    /** @type {any} */
    let result;
    notebook.transact(() => (result = change()));
    manager.stopCapturing();
    const made = top();
    if (made && made !== last) {
      const index = earlier ? manager.undoStack.indexOf(earlier) : -1;
      if (earlier && index >= 0 && merge(earlier, made)) manager.undoStack.splice(index, 1);
      steps.set(run, made);
    }
    return /** @type {T} */ (result);
  }

  /**
   * Add an earlier undo step's changes to a later one's. @param {StackItem} from @param {StackItem} to
   * @returns false where this version of Yjs keeps them otherwise: there are two steps then
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
   * @param {NotebookWidget} content @param {() => T} change */
  function keepingView(content, change) {
    const active = content.activeCell?.model.id;
    const { mode } = content;
    hold(content);
    const result = change();
    const index = content.widgets.findIndex(widget => widget.model.id === active);
    if (index >= 0 && index !== content.activeCellIndex) {
      content.activeCellIndex = index;
      content.mode = mode;
    }
    return result;
  }

  /** What the reader looks at stays where it is while cells above it grow. @param {NotebookWidget} content */
  function hold(content) {
    const scroller = content.outerNode;
    if (!scroller || content.notebookConfig.windowingMode === 'full') return; // such a notebook does it by itself
    const edge = scroller.getBoundingClientRect().top;
    const seen = content.widgets.find(({ node }) => node.getBoundingClientRect().bottom > edge)?.node;
    const place = () => seen?.getBoundingClientRect().top ?? 0;
    const top = place();
    let [frames, now] = [6, scroller.scrollTop];
    const step = () => {
      if (scroller.scrollTop !== now) return; // the reader scrolls
      const moved = place() - top;
      if (Math.abs(moved) >= 1) scroller.scrollTop += moved;
      now = scroller.scrollTop;
      if (--frames) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  /** @param {any} cell @returns {boolean} whether it has a published cell's shape */
  function isOurs(cell) {
    return ['code', 'markdown'].includes(cell?.cell_type) && typeof cell.id === 'string' &&
      typeof cell.source === 'string' && typeof cell.metadata?.[NOTE] === 'object';
  }

  /** @param {SharedCell} cell */
  function isAgent(cell) {
    return cell.cell_type === 'code' && AGENT.test(cell.getSource());
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
   * The cell as it goes into the notebook: trusted, since the kernel side has cleaned its outputs. On a markdown cell
   * `trusted` would leave the notebook unsigned. @param {CellJSON} cell @param {SharedCell} anchor
   */
  function adapt(cell, anchor) {
    const metadata = { ...cell.metadata, [NOTE]: { ...cell.metadata[NOTE], agent_cell: anchor.id } };
    return { ...cell, metadata: cell.cell_type === 'code' ? { ...metadata, trusted: true } : metadata };
  }

  /** Whether a message of a cell that runs stays in its output: not if it is for us and was dealt with.
   * @param {NotebookPanel} panel @param {Message} message */
  function stays(panel, message) {
    if (message.header.msg_type !== 'display_data') return true;
    const { data, metadata } = message.content;
    if (!data[MIME]) return !taken.has(metadata?.[NOTE]?.cell);
    const said = attempt(panel, data[MIME]);
    if (said === null) return true;
    message.content.data = { 'text/plain': said };
    return said !== '';
  }

  /** Drop outputs of an agent cell that carried what has become cells now.
   * @param {NotebookPanel} panel @param {string} id */
  function tidy(panel, id) {
    const anchor = panel.content.model?.sharedModel.cells.find(cell => cell.id === id);
    const outputs = anchor?.getOutputs() ?? [];
    const kept = outputs.filter(({ data, metadata }) => {
      const ids = data?.[MIME]?.cells?.map((/** @type {CellJSON} */ cell) => cell.id) ?? [metadata?.[NOTE]?.cell];
      return !ids.every((/** @type {string} */ name) => taken.has(name));
    });
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

  /** Hear what the cells say that this page runs; other pages' cells are theirs. @param {NotebookPanel} panel */
  function listen(panel) {
    panel.sessionContext.iopubMessage.connect((_, message) => {
      const kernel = panel.sessionContext.session?.kernel;
      const { msg_id, session } = message.parent_header;
      if (!kernel || session !== kernel.clientId) return;
      const { content } = message;
      if (message.header.msg_type === 'execute_input') {
        const agent = AGENT.test(content.code);
        kernel.registerMessageHook(msg_id, reply => {
          if (agent) hold(panel.content); // its progress grows and shrinks
          return stays(panel, reply);
        });
      } else if (message.header.msg_type === 'comm_msg' && content.comm_id === CHANNEL) {
        if (attempt(panel, content.data) !== null) tidy(panel, content.data.after);
      }
    });
  }

  /** Ask a kernel that ran already for the cells that this page has missed. @param {NotebookPanel} panel */
  async function attach(panel) {
    await panel.context.ready;
    const kernel = panel.sessionContext.session?.kernel;
    if (kernel?.connectionStatus !== 'connected' || !panel.content.model?.sharedModel.cells.some(isAgent)) return;
    try {
      const { content } = await kernel.requestCommInfo({ target_name: CHANNEL });
      if (content.comms?.[CHANNEL]) channel(kernel)?.send({ op: 'attach' });
    } catch {
      // The kernel is gone, and what it kept.
    }
  }

  /** @type {WeakMap<Kernel, Comm>} */
  const channels = new WeakMap();

  /** @param {Kernel} kernel */
  function channel(kernel) {
    let comm = channels.get(kernel);
    if ((!comm || comm.isDisposed) && kernel.handleComms) channels.set(kernel, (comm = kernel.createComm(CHANNEL, CHANNEL)));
    return comm;
  }

  /** SHA-256 of a text in hex; the browser's own is asynchronous, and missing where the page came by plain http. */
  function sha256(/** @type {string} */ text) {
    /** @type {number[]} */
    const primes = [];
    for (let n = 2; primes.length < 64; n++) if (primes.every(prime => n % prime)) primes.push(n);
    const roots = (/** @type {number} */ power) => primes.map(prime => ((prime ** power % 1) * 2 ** 32) | 0);
    const constants = roots(1 / 3);
    const hash = roots(1 / 2).slice(0, 8);
    const input = new TextEncoder().encode(text);
    const bytes = new Uint8Array((((input.length + 8) >> 6) + 1) << 6);
    bytes.set(input);
    bytes[input.length] = 0x80;
    const view = new DataView(bytes.buffer);
    view.setBigUint64(bytes.length - 8, BigInt(input.length) << 3n);
    const turned = (/** @type {number} */ x, /** @type {number[]} */ ...by) =>
      by.reduce((sum, n) => sum ^ ((x >>> n) | (x << (32 - n))), 0);
    const w = new Int32Array(64);
    for (let block = 0; block < bytes.length; block += 64) {
      let [a, b, c, d, e, f, g, h] = hash;
      for (let i = 0; i < 64; i++) {
        const [x, y] = [w[i - 15], w[i - 2]];
        w[i] = i < 16 ? view.getInt32(block + 4 * i)
          : w[i - 16] + w[i - 7] + (turned(x, 7, 18) ^ (x >>> 3)) + (turned(y, 17, 19) ^ (y >>> 10));
        const one = h + turned(e, 6, 11, 25) + ((e & f) ^ (~e & g)) + constants[i] + w[i];
        const two = turned(a, 2, 13, 22) + ((a & b) ^ (a & c) ^ (b & c));
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
      }
      [a, b, c, d, e, f, g, h].forEach((value, i) => (hash[i] = (hash[i] + value) | 0));
    }
    return hash.map(value => (value >>> 0).toString(16).padStart(8, '0')).join('');
  }

  const plugin = {
    id: `${NAME}:plugin`,
    autoStart: true,
    /** @param {Application} app */
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

  (window._JUPYTERLAB ??= {})[NAME] = {
    init() {}, // nothing is shared with other modules
    get: async () => () => ({ __esModule: true, default: plugin }) // './extension' is all there is
  };
})();
