// The part of JupyterLab 4's interface that the module uses, as of 4.1 and 4.6; the browser tests check that it is there.

declare module 'jupyterlab' {
  type JSONObject = Record<string, any>;

  interface Signal<Sender, Arguments> {
    connect(slot: (sender: Sender, arguments_: Arguments) => void): boolean;
  }

  interface Message {
    header: { msg_type: string };
    parent_header: { msg_id: string; session: string };
    content: any;
  }

  interface Comm {
    readonly isDisposed: boolean;
    send(data: JSONObject): unknown;
  }

  interface Kernel {
    readonly clientId: string;
    readonly connectionStatus: 'connected' | 'connecting' | 'disconnected';
    readonly handleComms: boolean;
    createComm(targetName: string, commId: string): Comm;
    registerMessageHook(msgId: string, hook: (message: Message) => boolean): void;
    requestCommInfo(content: { target_name: string }): Promise<{ content: { comms?: Record<string, unknown> } }>;
  }

  interface SessionContext {
    readonly session: { readonly kernel: Kernel | null } | null;
    readonly iopubMessage: Signal<SessionContext, Message>;
    readonly connectionStatusChanged: Signal<SessionContext, string>;
  }

  interface CellJSON {
    cell_type: string;
    id: string;
    source: string;
    metadata: JSONObject;
  }

  interface SharedCell {
    readonly id: string;
    readonly cell_type: string;
    getSource(): string;
    getOutputs(): { data?: JSONObject; metadata?: JSONObject }[];
    setOutputs(outputs: unknown[]): void;
    getMetadata(key: string): any;
    setMetadata(key: string, value: unknown): void;
  }

  /** Of Yjs: sets of changes by client. */
  interface StackItem {
    insertions?: { clients?: Map<number, { clock: number }[]> };
    deletions?: { clients?: Map<number, { clock: number }[]> };
  }

  interface UndoManager {
    undoStack: StackItem[];
    lastChange: number;
    stopCapturing(): void;
  }

  interface Notebook {
    readonly cells: SharedCell[];
    readonly undoManager: UndoManager;
    deleteCell(index: number): void;
    insertCells(index: number, cells: CellJSON[]): unknown;
    transact(change: () => void, undoable?: boolean): void;
  }

  interface NotebookWidget {
    readonly activeCell: { readonly model: { readonly id: string } } | null;
    activeCellIndex: number;
    mode: 'command' | 'edit';
    readonly notebookConfig: { readonly windowingMode: string };
    /** What scrolls. */
    readonly outerNode?: HTMLElement;
    readonly model: { readonly sharedModel: Notebook } | null;
    readonly widgets: readonly { readonly model: { readonly id: string }; readonly node: HTMLElement }[];
  }

  interface NotebookPanel {
    readonly content: NotebookWidget;
    readonly context: { readonly ready: Promise<void> };
    readonly sessionContext: SessionContext;
  }

  interface Application {
    docRegistry: {
      addWidgetExtension(factory: 'Notebook', extension: { createNew(panel: NotebookPanel): void }): unknown;
    };
  }

  /** What the kernel side publishes. */
  interface KernelRequest {
    version: number;
    run: string;
    after: string | null;
    cells: CellJSON[];
    undo?: boolean;
  }
}

interface Window {
  _JUPYTERLAB?: Record<string, unknown>;
}
