import { Dialog } from '@/ui/dialog';
import { KeyEditor } from './editor';
import { Keys } from './shown';

/** The `?` overlay: all keys, each to be changed. */
export default function KeysDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="Keyboard shortcuts"
      description={
        <>
          In a text field or a terminal only keys with <Keys keys="Mod+Shift" /> act.
        </>
      }
    >
      <KeyEditor />
    </Dialog>
  );
}
