import { useMutation } from '@tanstack/react-query';
import { LogOut } from 'lucide-react';
import { useState } from 'react';
import { api } from '@/api/client';
import { Section } from '@/app/page';
import { logout } from '@/auth/session';
import { tokens } from '@/auth/tokens';
import { Button } from '@/ui/button';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Card } from '@/ui/list';
import { SettingsPage } from './frame';

export function SignInSettings() {
  const [asking, setAsking] = useState(false);
  const everywhere = useMutation({
    mutationFn: () => api.post<unknown>('/api/auth/logout-all'),
    onSuccess: () => tokens.write(null),
  });
  return (
    <SettingsPage
      title="Sign-ins"
      lead="A sign-in lives in one browser or one command line. Your sessions and terminals go on without it."
    >
      <Section title="This browser">
        <Card className="flex flex-wrap items-center justify-between gap-3 p-4">
          <p className="max-w-md text-sm text-fg-2">You are signed in here. Others stay as they are.</p>
          <Button icon={LogOut} onClick={logout}>
            Sign out here
          </Button>
        </Card>
      </Section>
      <Section title="Everywhere">
        <Card className="flex flex-wrap items-center justify-between gap-3 p-4">
          <p className="max-w-md text-sm text-fg-2">
            Ends every sign-in of yours, this one too, and closes the terminals that they have open. Do this
            when a device is lost.
          </p>
          <Button variant="danger" icon={LogOut} onClick={() => setAsking(true)}>
            Sign out everywhere
          </Button>
        </Card>
      </Section>
      <ConfirmDialog
        open={asking}
        onOpenChange={setAsking}
        title="Sign out everywhere?"
        action="Sign out everywhere"
        busy={everywhere.isPending}
        onConfirm={() => everywhere.mutate()}
      >
        <p>
          You will have to sign in again here and on all other devices. What runs in your environments goes
          on.
        </p>
        {everywhere.isError && <ErrorNote error={everywhere.error} />}
      </ConfirmDialog>
    </SettingsPage>
  );
}
